//! From what the SDK and the service say to what a caller can act on: an answer, a wrong setting, or "later".

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use rustls::CertificateError;

/// Why one request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The service says so in its own words: there is no such object.
    NoSuchKey,
    /// "Not found" without words: an answer to HEAD, or not from an S3 service at all.
    BareNotFound,
    /// Refused without words, as answers to HEAD are: asking again with GET tells why.
    BareRefusal(u16),
    /// The key is taken (412).
    Taken,
    /// The upload that we want to complete is gone: completed by our own earlier request, or aborted by somebody.
    NoSuchUpload,
    /// The object ends before the range begins.
    BadRange,
    /// No room.
    Full,
    /// A setting is wrong.
    Refused { what: String, setting: &'static str, hint: String },
    /// May be better in a moment. `reached` tells whether anything answered at all.
    Transient { what: String, reached: bool },
}

impl Failure {
    pub(super) fn refused(what: &str, setting: &'static str, hint: &str) -> Self {
        Failure::Refused { what: what.to_owned(), setting, hint: hint.to_owned() }
    }

    pub(super) fn transient(what: impl Into<String>) -> Self {
        Failure::Transient { what: what.into(), reached: true }
    }

    fn unreached(what: impl Into<String>) -> Self {
        Failure::Transient { what: what.into(), reached: false }
    }
}

impl<E> From<SdkError<E, HttpResponse>> for Failure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        match &error {
            SdkError::ServiceError(answer) => said(answer.raw(), answer.err().code(), answer.err().message()),
            SdkError::ResponseError(answer) => unintelligible(answer.raw(), &words(&error)),
            SdkError::TimeoutError(_) => Failure::unreached("no answer in time"),
            SdkError::ConstructionFailure(_) => {
                Failure::refused(&words(&error), "repo.N.bucket and repo.N.endpoint", "No request can be made from them.")
            }
            _ => not_sent(&error),
        }
    }
}

/// The request did not get an answer: no connection, no trust, no credentials, or nothing that could be sent.
fn not_sent(error: &(dyn Error + 'static)) -> Failure {
    let chain: Vec<_> = chain(error).collect();
    if let Some(credentials) = chain.iter().find_map(|cause| cause.downcast_ref::<CredentialsError>()) {
        return identity(credentials);
    }
    if let Some(tls) = chain.iter().find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
        return distrust(tls);
    }
    if let Some(io) = chain.iter().find_map(|cause| cause.downcast_ref::<std::io::Error>()) {
        return Failure::unreached(io.to_string());
    }
    Failure::unreached(words(error))
}

fn identity(error: &CredentialsError) -> Failure {
    match error {
        CredentialsError::ProviderTimedOut(_) => Failure::unreached(format!("credentials cannot be had: {}", words(error))),
        CredentialsError::CredentialsNotLoaded(_) => no_credentials(),
        _ => Failure::refused(
            &format!("credentials cannot be had: {}", words(error)),
            "repo.N.profile",
            "Is the profile's login still valid, or the instance's role attached?",
        ),
    }
}

pub(super) fn no_credentials() -> Failure {
    let hint = "No profile, web identity or instance role was found either.";
    Failure::refused("no credentials are known", "repo.N.access-key-id and repo.N.secret-access-key", hint)
}

fn distrust(error: &rustls::Error) -> Failure {
    let what = format!("no trusted connection: {error}");
    match error {
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Failure::refused(&what, "repo.N.endpoint", "The server's certificate is for another host name.")
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                Failure::refused(&what, "the clock of this host", "If it is right, the server needs a new certificate.")
            }
            _ => Failure::refused(&what, "repo.N.ca-file", "It must hold the authority that signed the server's certificate."),
        },
        rustls::Error::InvalidMessage(_) => Failure::refused(&what, "repo.N.endpoint", "Does the service speak plain http://?"),
        _ => Failure::unreached(what),
    }
}

/// The service answered in S3's words, or at least with a status.
fn said(response: &HttpResponse, code: Option<&str>, message: Option<&str>) -> Failure {
    let status = response.status().as_u16();
    let what = match (code, message) {
        (Some(code), Some(message)) => format!("{code}: {}", message.trim_end_matches('.')),
        (Some(code), None) => code.to_owned(),
        _ => format!("status {status}"),
    };
    match code {
        Some("NoSuchKey") => Failure::NoSuchKey,
        Some("NoSuchUpload") => Failure::NoSuchUpload,
        Some("PreconditionFailed") => Failure::Taken,
        Some("InvalidRange") => Failure::BadRange,
        Some("QuotaExceeded" | "StorageFull" | "XMinioStorageFull" | "InsufficientStorage") => Failure::Full,
        // Two conditional writes of one key at the same moment; AWS asks for a repetition.
        Some("ConditionalRequestConflict" | "OperationAborted" | "RequestTimeout" | "SlowDown") => Failure::transient(what),
        _ => wrong_setting(code, &what, response).unwrap_or_else(|| by_status(status, code, &what)),
    }
}

fn wrong_setting(code: Option<&str>, what: &str, response: &HttpResponse) -> Option<Failure> {
    let refused = |setting, hint: &str| Some(Failure::refused(what, setting, hint));
    let region = || match response.headers().get("x-amz-bucket-region") {
        Some(region) => format!("The bucket is in {region}."),
        None => "The bucket is in another one.".to_owned(),
    };
    match code? {
        "NoSuchBucket" => refused("repo.N.bucket", "There is no such bucket at this endpoint; Bygone makes none."),
        "InvalidBucketName" => refused("repo.N.bucket", "Names have 3 to 63 lower-case letters, digits, dots and hyphens."),
        "InvalidAccessKeyId" => refused("repo.N.access-key-id", "The service does not know it."),
        "SignatureDoesNotMatch" => {
            refused("repo.N.secret-access-key", "It does not belong to the access key, or a proxy changes requests on their way.")
        }
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => refused(
            "repo.N.access-key-id",
            "Its user or role may not do this: it needs to list, get and put objects, and to delete them for expire.",
        ),
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
            refused("repo.N.profile", "The session of these credentials has ended.")
        }
        "AuthorizationHeaderMalformed" | "PermanentRedirect" | "TemporaryRedirect" | "Redirect" | "IllegalLocationConstraintException" => {
            refused("repo.N.region", &region())
        }
        "RequestTimeTooSkewed" | "RequestExpired" => {
            refused("the clock of this host", &format!("It differs from the store's by minutes{}.", store_time(response)))
        }
        "NotImplemented" => refused("repo.N.endpoint", "The service lacks something that Bygone needs."),
        _ => None,
    }
}

fn store_time(response: &HttpResponse) -> String {
    response.headers().get("date").map(|date| format!(": there it is {date}")).unwrap_or_default()
}

fn by_status(status: u16, code: Option<&str>, what: &str) -> Failure {
    match status {
        404 if code.is_none_or(|code| code == "NotFound") => Failure::BareNotFound,
        412 => Failure::Taken,
        416 => Failure::BadRange,
        507 => Failure::Full,
        408 | 409 | 429 => Failure::transient(what),
        300..500 if code.is_none() => Failure::BareRefusal(status),
        300..500 => Failure::refused(what, "repo.N.endpoint", "The service did not accept the request."),
        _ => Failure::transient(what),
    }
}

/// An answer that is not S3's. In the good case its body was cut; a refusal in other words comes from another kind of server.
fn unintelligible(response: &HttpResponse, words: &str) -> Failure {
    match response.status().as_u16() {
        status @ 300..500 => Failure::BareRefusal(status),
        status => Failure::transient(format!("status {status}, {words}")),
    }
}

/// An error and its causes in one line, each once.
pub(super) fn words(error: &(dyn Error + 'static)) -> String {
    let mut words: Vec<String> = Vec::new();
    for cause in chain(error) {
        let said = cause.to_string();
        if !words.iter().any(|earlier| earlier.contains(&said)) {
            words.push(said);
        }
    }
    words.join(": ")
}

/// An error and its causes. What an io error wraps is one of them, though it does not say so itself (it names only the cause of that).
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| (*error).source())
    })
}
