//! Without a key in the configuration, the identity is searched where AWS's own tools search: profile, web identity, instance.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::World;
use crate::harness::run::Runner;

/// Plays the service of tokens, the instance's metadata and a bucket without objects, and keeps what was asked.
struct Aws {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Aws {
    fn start() -> Aws {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let kept = requests.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().filter_map(Result::ok) {
                let request = read_request(&client);
                let (status, body) = answer(&request);
                let _gone = write!(
                    &client,
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\nx-aws-ec2-metadata-token-ttl-seconds: 600\r\n\r\n{body}",
                    body.len()
                );
                kept.lock().expect("nobody panics while holding it").push(request);
            }
        });
        Aws { url, requests }
    }

    /// The key and the token that requests to the bucket were signed with.
    fn signed_with(&self) -> (String, Option<String>) {
        let requests = self.requests.lock().expect("nobody panics while holding it");
        let of_bucket = requests.iter().rfind(|request| request.contains(" /a-bucket")).expect("the bucket is asked");
        let header = |name: &str| {
            let line = of_bucket.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}:")))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let credential = header("authorization").expect("it is signed");
        let key = credential.split("Credential=").nth(1).and_then(|rest| rest.split('/').next()).expect("a key").to_owned();
        (key, header("x-amz-security-token"))
    }
}

/// Head and body of a request.
fn read_request(mut client: &TcpStream) -> String {
    client.set_read_timeout(Some(Duration::from_secs(60))).expect("a time limit can be set");
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let len = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
            if body.len() >= len.unwrap_or(0) {
                return text;
            }
        }
        match client.read(&mut buffer) {
            Ok(len @ 1..) => bytes.extend(&buffer[..len]),
            _ => return text,
        }
    }
}

const FOREVER: &str = "2100-01-01T00:00:00Z";

fn answer(request: &str) -> (&'static str, String) {
    let path = request.split(' ').nth(1).unwrap_or_default();
    if request.contains("Action=AssumeRoleWithWebIdentity") {
        assert!(request.contains("WebIdentityToken=a-token") && request.contains("RoleArn=arn"), "{request}");
        let credentials = format!(
            "<Credentials><AccessKeyId>of-web-identity</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
             <SessionToken>web-token</SessionToken><Expiration>{FOREVER}</Expiration></Credentials>"
        );
        let result = format!("<AssumeRoleWithWebIdentityResult>{credentials}</AssumeRoleWithWebIdentityResult>");
        let namespace = "https://sts.amazonaws.com/doc/2011-06-15/";
        return (
            "200 OK",
            format!("<AssumeRoleWithWebIdentityResponse xmlns=\"{namespace}\">{result}</AssumeRoleWithWebIdentityResponse>"),
        );
    }
    match path {
        "/latest/api/token" => ("200 OK", "metadata-token".to_owned()),
        "/latest/meta-data/iam/security-credentials/" => ("200 OK", "a-role".to_owned()),
        "/latest/meta-data/iam/security-credentials/a-role" => (
            "200 OK",
            format!(
                r#"{{"Code":"Success","Type":"AWS-HMAC","LastUpdated":"2020-01-01T00:00:00Z","AccessKeyId":"of-instance","SecretAccessKey":"s","Token":"instance-token","Expiration":"{FOREVER}"}}"#
            ),
        ),
        _ => ("404 Not Found", "<Error><Code>NoSuchKey</Code><Message>none</Message></Error>".to_owned()),
    }
}

/// Asks for what is in the bucket, as a user whose environment has nothing of AWS but `env`.
fn ask(world: &World, aws: &Aws, lines: &str, env: &[(&str, &str)]) -> (String, Option<String>) {
    let key = world.file("repo1.key", "correct horse battery staple");
    world.file(
        "bygone.toml",
        format!(
            "[repo.1]\ntype = \"s3\"\nbucket = \"a-bucket\"\nendpoint = {:?}\nregion = \"eu-central-1\"\npath-style = true\nkey-file = {key:?}\n{lines}\
             [cluster.main]\ndata-directory = {:?}\n",
            aws.url,
            world.path()
        ),
    );
    let runner = env.iter().fold(world.bygone(["info"]), |runner, (name, value)| runner.env(name, value));
    let runner: Runner = runner.env("HOME", world.path());
    runner.fails().says("bygone init");
    aws.signed_with()
}

#[test]
fn identity_is_that_of_the_profile_the_web_identity_or_the_instance() {
    let (world, aws) = (World::new(), Aws::start());
    let profiles = "[default]\naws_access_key_id = of-default\naws_secret_access_key = s\n[backup]\naws_access_key_id = of-backup\naws_secret_access_key = s\n";
    let profiles = world.file("credentials", profiles);
    let file = [("AWS_SHARED_CREDENTIALS_FILE", profiles.to_str().expect("UTF-8"))];
    assert_eq!(ask(&world, &aws, "", &file), ("of-default".to_owned(), None));
    assert_eq!(ask(&world, &aws, "profile = \"backup\"\n", &file), ("of-backup".to_owned(), None));

    let token = world.file("token", "a-token");
    let web = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().expect("UTF-8")),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup"),
        ("AWS_ENDPOINT_URL_STS", &aws.url),
    ];
    assert_eq!(ask(&world, &aws, "", &web), ("of-web-identity".to_owned(), Some("web-token".to_owned())));

    let instance = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", aws.url.as_str())];
    assert_eq!(ask(&world, &aws, "", &instance), ("of-instance".to_owned(), Some("instance-token".to_owned())));
}
