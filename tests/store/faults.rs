//! Faults between the SDK and the wire, planned request by request: what a network and a failing service do, without either.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::config::{ConfigBag, HttpClient, RuntimeComponents, RuntimeComponentsBuilder, SharedHttpClient};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use bygone::store::s3::S3Store;
use bygone::store::settings::S3Settings;
use parking_lot::Mutex;

/// What happens to one request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Nothing: it goes through.
    None,
    /// The connection is reset before the request is sent.
    Reset,
    /// The request is carried out, its answer lost.
    LoseAnswer,
    /// An answer that the service never gave: status, code.
    Answer(u16, &'static str),
    /// The answer's body ends so many bytes early.
    Cut(usize),
    /// The answer's body has its first bit flipped.
    Flip,
    /// No answer, ever.
    Silence,
}

/// A plan: one fault a request, in their order. Requests beyond it suffer the last one if `forever`, else none.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    faults: Arc<Mutex<VecDeque<Fault>>>,
    forever: bool,
    log: Arc<Mutex<Vec<String>>>,
}

/// A store whose requests go according to plan.
pub(crate) fn store(settings: &S3Settings, faults: &[Fault], forever: bool) -> (S3Store, Plan) {
    let plan = Plan { faults: Arc::new(Mutex::new(faults.iter().cloned().collect())), forever, log: Arc::default() };
    let store = S3Store::open_over(settings, |inner| SharedHttpClient::new(Client { inner, plan: plan.clone() })).unwrap();
    (store, plan)
}

impl Plan {
    /// Method of every request so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.log.lock().clone()
    }

    fn next(&self, request: &HttpRequest) -> Fault {
        self.log.lock().push(request.method().to_owned());
        let mut faults = self.faults.lock();
        if self.forever && faults.len() == 1 { faults[0].clone() } else { faults.pop_front().unwrap_or(Fault::None) }
    }
}

#[derive(Debug)]
struct Client {
    inner: SharedHttpClient,
    plan: Plan,
}

impl HttpClient for Client {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector { inner: self.inner.http_connector(settings, components), plan: self.plan.clone() })
    }

    fn validate_base_client_config(&self, components: &RuntimeComponentsBuilder, config: &ConfigBag) -> Result<(), BoxError> {
        self.inner.validate_base_client_config(components, config)
    }
}

#[derive(Debug)]
struct Connector {
    inner: SharedHttpConnector,
    plan: Plan,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let fault = self.plan.next(&request);
        let inner = self.inner.clone();
        HttpConnectorFuture::new(async move {
            match fault {
                Fault::None => inner.call(request).await,
                Fault::Reset => Err(reset()),
                Fault::LoseAnswer => inner.call(request).await.and_then(|_lost| Err(reset())),
                Fault::Answer(status, code) => Ok(answer(status, code)),
                Fault::Cut(less) => damaged(inner.call(request).await?, |body| body.truncate(body.len().saturating_sub(less))).await,
                Fault::Flip => damaged(inner.call(request).await?, |body| body[0] ^= 1).await,
                Fault::Silence => {
                    tokio::time::sleep(Duration::from_secs(3600)).await;
                    Err(reset())
                }
            }
        })
    }
}

fn reset() -> ConnectorError {
    ConnectorError::io(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into())
}

fn answer(status: u16, code: &str) -> HttpResponse {
    let words = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as planned</Message></Error>");
    HttpResponse::new(status.try_into().unwrap(), SdkBody::from(words))
}

/// The answer with another body, its headers (and so its announced length) as they were.
async fn damaged(answer: HttpResponse, damage: impl FnOnce(&mut Vec<u8>)) -> Result<HttpResponse, ConnectorError> {
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = aws_sdk_s3::primitives::ByteStream::new(answer.into_body()).collect().await;
    let mut body = body.map_err(|error| ConnectorError::io(error.into()))?.to_vec();
    damage(&mut body);
    let mut answer = HttpResponse::new(status, SdkBody::from(body));
    for (name, value) in &headers {
        answer.headers_mut().insert(name.to_owned(), value.to_owned());
    }
    Ok(answer)
}
