//! A bucket and the way to it: plain values. The secret does not show in `Debug`.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

/// An S3 bucket and the way to it.
#[derive(Debug, Clone)]
pub struct S3Settings {
    pub bucket: String,
    /// What all keys begin with; slashes at its ends do not count. May be empty.
    pub prefix: String,
    /// `https://host:port`; without one it is AWS's for the region. A bare host means https.
    pub endpoint: Option<String>,
    /// Without one: `us-east-1` at an endpoint of its own, else what the AWS profile, environment or instance says.
    pub region: Option<String>,
    /// The bucket goes into the path (`host/bucket/key`) and not into the host name (`bucket.host/key`).
    pub path_style: bool,
    /// PEM certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// A profile of the AWS configuration files.
    pub profile: Option<String>,
    /// A fixed access key. Without one: the profile, else environment, web identity, container, instance, as the AWS SDK looks for them.
    pub access_key: Option<AccessKey>,
    pub timeouts: Timeouts,
    /// Size of one part of a large object, bytes: at least 5 MiB. An upload holds five of them in memory at most.
    pub part_size: usize,
    /// Requests under way at one time, all threads together.
    pub parallel: usize,
}

/// A fixed access key.
#[derive(Debug, Clone)]
pub struct AccessKey {
    pub id: String,
    pub secret: SecretString,
}

/// How long we are patient.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Until a connection stands.
    pub connect: Duration,
    /// From sending a request until its answer begins, and the longest silence within an answer.
    pub read: Duration,
    /// One request, all its repetitions included: after this the store counts as dead.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { connect: Duration::from_secs(10), read: Duration::from_secs(30), total: Duration::from_secs(60) }
    }
}

impl S3Settings {
    /// A bucket of AWS, everything else by default.
    #[must_use]
    pub fn new(bucket: impl Into<String>) -> Self {
        S3Settings {
            bucket: bucket.into(),
            prefix: String::new(),
            endpoint: None,
            region: None,
            path_style: false,
            ca_file: None,
            profile: None,
            access_key: None,
            timeouts: Timeouts::default(),
            part_size: 8 << 20,
            parallel: 32,
        }
    }

    /// What says where it lies: endpoint, bucket and prefix.
    pub(in crate::store) fn place(&self) -> (Option<String>, &str, &str) {
        let endpoint = self.endpoint_url().map(|url| url.trim_end_matches('/').to_ascii_lowercase());
        (endpoint, &self.bucket, self.prefix.trim_matches('/'))
    }

    /// The endpoint with its scheme.
    pub(super) fn endpoint_url(&self) -> Option<String> {
        let endpoint = self.endpoint.as_ref()?;
        Some(if endpoint.contains("://") { endpoint.clone() } else { format!("https://{endpoint}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_without_a_scheme_means_https() {
        let mut settings = S3Settings::new("bucket");
        assert_eq!(settings.endpoint_url(), None);
        settings.endpoint = Some("minio:9000".to_owned());
        assert_eq!(settings.endpoint_url().unwrap(), "https://minio:9000");
        settings.endpoint = Some("http://minio:9000".to_owned());
        assert_eq!(settings.endpoint_url().unwrap(), "http://minio:9000");
    }
}
