//! Makes the SDK's client from our settings: connections, trust, identity, time-outs.
//!
//! The SDK's own retries are off: `super::retry` does them, since it also repeats what the SDK does not (bodies cut short) and keeps
//! the reason of the last failure.

use aws_config::BehaviorVersion;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Builder, Credentials, Region, SharedHttpClient, StalledStreamProtectionConfig};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::ExposeSecret;

use super::error::Failure;
use super::settings::S3Settings;

/// Where a service of its own does not care, SigV4 still wants a region to sign for.
const REGION_OF_NO_IMPORTANCE: &str = "us-east-1";

/// The HTTP client for the bucket's endpoint. `wrap` may put a layer around it: tests inject faults there, below signing and above TLS.
pub(super) fn http_client(settings: &S3Settings) -> Result<SharedHttpClient, Failure> {
    let builder = aws_smithy_http_client::Builder::new();
    if settings.endpoint_url().is_some_and(|url| url.starts_with("http://")) {
        return Ok(builder.build_http());
    }
    let trust = match &settings.ca_file {
        Some(file) => TrustStore::empty().with_pem_certificate(checked_certificates(file)?),
        None => TrustStore::default(),
    };
    let context = TlsContext::builder().with_trust_store(trust).build().map_err(|error| ca_file(&error.to_string()))?;
    Ok(builder.tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(context).build_https())
}

/// Reads a CA file and makes sure of what the SDK would panic about: that it holds certificates that can be used.
fn checked_certificates(file: &std::path::Path) -> Result<Vec<u8>, Failure> {
    let pem = fs_err::read(file).map_err(|error| ca_file(&error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| ca_file(&format!("{} is not PEM: {error}", file.display())))?;
        roots.add(certificate).map_err(|error| ca_file(&format!("{}: {error}", file.display())))?;
    }
    if roots.is_empty() { Err(ca_file(&format!("{} holds no certificate", file.display()))) } else { Ok(pem) }
}

fn ca_file(what: &str) -> Failure {
    Failure::refused(what, "repo.N.ca-file", "It should hold the certificate of the authority that signed the server's, in PEM form.")
}

/// Settles identity and region and builds the client. Nothing is asked of the store.
pub(super) async fn client(settings: &S3Settings, http: SharedHttpClient) -> Result<Client, Failure> {
    let timeouts = &settings.timeouts;
    let timeout_config = TimeoutConfig::builder().connect_timeout(timeouts.connect).read_timeout(timeouts.read).build();
    // A stalled upload is what the read time-out is for: the request body is in memory and handed over at once.
    let stalls = StalledStreamProtectionConfig::enabled().grace_period(timeouts.read).upload_enabled(false).build();
    let mut config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeout_config)
        .stalled_stream_protection(stalls)
        .retry_config(RetryConfig::disabled())
        // A clock that is off would also give backups wrong times: better to be told than to be helped silently.
        .disable_clock_skew_correction(true)
        .force_path_style(settings.path_style);
    if let Some(url) = settings.endpoint_url() {
        config = config.endpoint_url(url);
    }
    Ok(Client::from_conf(identify(settings, config).await?.build()))
}

/// A fixed key needs nothing but itself. Otherwise the SDK searches where AWS's other tools do, over connections of its own that trust the
/// system's certificates: `ca-file` is for the store only.
async fn identify(settings: &S3Settings, config: Builder) -> Result<Builder, Failure> {
    let region = settings.region.clone().or_else(|| settings.endpoint.is_some().then(|| REGION_OF_NO_IMPORTANCE.to_owned()));
    let region = region.map(Region::new);
    if let (Some(key), Some(region)) = (&settings.access_key, &region) {
        let credentials = Credentials::new(&key.id, key.secret.expose_secret(), None, None, "configuration");
        return Ok(config.region(region.clone()).credentials_provider(credentials));
    }
    let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
    if let Some(profile) = &settings.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(region) = region {
        loader = loader.region(region);
    }
    if let Some(key) = &settings.access_key {
        loader = loader.credentials_provider(Credentials::new(&key.id, key.secret.expose_secret(), None, None, "configuration"));
    }
    let found = loader.load().await;
    let region = found.region().cloned();
    let region = region.ok_or_else(|| Failure::refused("no region is known", "repo.N.region", "AWS has a region for every bucket."))?;
    let credentials = found.credentials_provider().ok_or_else(super::error::no_credentials)?;
    Ok(config.region(region).credentials_provider(credentials))
}
