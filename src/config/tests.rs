use super::*;

const FILE: &str = r#"
    [repo.1]
    path = "/var/lib/bygone"
    key-file = "/etc/bygone/repo1.key"
    [repo.2]
    type = "s3"
    bucket = "backups"
    path = "/prod/"
    path-style = true
    cipher = "none"
    required = false
    [cluster.main-db]
    data-directory = "/var/lib/postgresql/18/main"
    [compress]
    level = 9
"#;

fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs_err::write(file.path(), text).unwrap();
    Config::load(Some(file.path()), variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

#[test]
fn a_file_becomes_one_checked_value() {
    let config = load(FILE, &[("HOME", "/home/dba")]).unwrap();
    assert_eq!(
        config.repos.iter().map(|repo| (repo.number, repo.encrypt, repo.required)).collect::<Vec<_>>(),
        [(1, true, true), (2, false, false)]
    );
    assert!(matches!(&config.repos[0].key, KeySource::File(path) if path == Path::new("/etc/bygone/repo1.key")));
    assert!(matches!(&config.repos[1].place, Place::S3(s3) if s3.bucket == "backups" && s3.prefix == "prod" && s3.path_style));
    let cluster = config.cluster(None).unwrap();
    assert_eq!((cluster.name.as_str(), cluster.connection.as_str()), ("main-db", "host=/var/run/postgresql user=postgres dbname=postgres"));
    assert_eq!(config.compress_level, 9);
    assert_eq!(config.archive.timeout, Duration::from_secs(60));
    assert_eq!(config.cache.directory, Path::new("/home/dba/.cache/bygone"));
}

#[test]
fn the_environment_wins_over_the_file() {
    let variables = [
        ("BYGONE_COMPRESS_LEVEL", "1"),
        ("BYGONE_REPO_1_PATH", "/mnt/backup"),
        ("BYGONE_REPO_1_KEY", "correct horse"),
        ("BYGONE_CLUSTER_MAIN_DB_DATA_DIRECTORY", "/data"),
        ("BYGONE_CONFIG", "/elsewhere"),
    ];
    let config = load(FILE, &variables).unwrap();
    assert_eq!(config.compress_level, 1);
    assert!(matches!(&config.repos[0].place, Place::Posix(path) if path == Path::new("/mnt/backup")));
    assert!(matches!(&config.repos[0].key, KeySource::Value(_)));
    assert_eq!(config.cluster(Some("main-db")).unwrap().data_directory, Path::new("/data"));
}

#[test]
fn the_environment_alone_is_enough() {
    let variables = [("BYGONE_REPO_1_PATH", "/r"), ("BYGONE_REPO_1_CIPHER", "none"), ("BYGONE_CLUSTER_MAIN_DATA_DIRECTORY", "/data")];
    let config = Config::load(None, variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()))).unwrap();
    assert_eq!(config.cluster(None).unwrap().name, "main");
}

#[test]
fn an_unknown_setting_is_refused_by_name_with_a_suggestion() {
    let error = load("[repo.1]\npth = \"/x\"\n", &[]).unwrap_err();
    assert!(matches!(&error, ConfigError::Unknown { name, .. } if name == "repo.1.pth"));
    assert_eq!(error.hint().as_deref(), Some("Did you mean repo.1.path?"));
    let error = load(FILE, &[("BYGONE_COMPRES_LEVEL", "1")]).unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("Did you mean BYGONE_COMPRESS_LEVEL?"));
}

#[test]
fn a_value_of_the_wrong_kind_says_what_is_wanted() {
    for (text, wanted) in [
        ("[repo.1]\npath = \"relative\"", "an absolute path"),
        ("[compress]\nlevel = 99", "a whole number from 1 to 19"),
        ("[compress]\nlevel = \"3\"", "a whole number from 1 to 19"),
        ("[repo.1]\nrequired = \"yes\"", "true or false"),
        ("[repo.1]\ntype = \"nfs\"", "posix or s3"),
        ("[repo.1]\nkey-command = \"vault\"", "a program and its arguments, as a list of texts"),
    ] {
        let error = load(text, &[]).unwrap_err();
        assert!(matches!(&error, ConfigError::WrongKind { wanted: said, .. } if said == wanted), "{text}: {error}");
    }
}

#[test]
fn a_secret_in_the_file_is_refused() {
    let error = load("[repo.1]\npath = \"/x\"\nkey = \"hunter2\"", &[]).unwrap_err();
    assert!(error.hint().unwrap().contains("BYGONE_REPO_1_KEY"));
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[test]
fn debug_shows_no_secret() {
    let variables =
        [("BYGONE_REPO_1_KEY", "hunter2"), ("BYGONE_REPO_2_ACCESS_KEY_ID", "id"), ("BYGONE_REPO_2_SECRET_ACCESS_KEY", "hunter3")];
    let config = load(FILE, &variables).unwrap();
    assert!(!format!("{config:?}").contains("hunter"), "{config:?}");
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let both = "[repo.1]\npath = \"/x\"\nkey-file = \"/k\"\nkey-command = [\"k\"]";
    assert!(matches!(load(both, &[]), Err(ConfigError::Both { .. })));
    assert!(matches!(load("[repo.1]\ntype = \"s3\"", &[]), Err(ConfigError::Missing { name, .. }) if name == "repo.1.bucket"));
    assert!(matches!(load("[repo.1]\ncipher = \"none\"", &[]), Err(ConfigError::Missing { name, .. }) if name == "repo.1.path"));
    assert!(matches!(load("[repo.one]\npath = \"/x\"", &[]), Err(ConfigError::BadName { .. })));
    assert!(matches!(load("[repo.1]\npath = \"/x\"\n[cluster.Main]\ndata-directory = \"/d\"", &[]), Err(ConfigError::BadName { .. })));
    assert!(matches!(load("", &[]), Err(ConfigError::Missing { name, .. }) if name == "repo.1.path"));
    let twice = "[repo.1]\npath = \"/x/y\"\n[repo.2]\npath = \"/z\"\n[repo.7]\npath = \"/x/./y/\"";
    assert!(matches!(load(twice, &[]), Err(ConfigError::SamePlace { first: 1, second: 7 })));
    assert!(matches!(load("no toml", &[]), Err(ConfigError::NotToml { .. })));
    assert!(matches!(Config::load(Some(Path::new("/nowhere.toml")), std::iter::empty()), Err(ConfigError::NoFile { .. })));
}

#[test]
fn a_cluster_must_be_named_where_there_are_several() {
    let config = load("[repo.1]\npath = \"/x\"\n[cluster.a]\ndata-directory = \"/a\"\n[cluster.b]\ndata-directory = \"/b\"", &[]).unwrap();
    assert!(matches!(config.cluster(None), Err(ConfigError::WhichCluster { .. })));
    assert_eq!(config.cluster(Some("b")).unwrap().data_directory, Path::new("/b"));
    assert!(matches!(config.cluster(Some("c")), Err(ConfigError::NotConfigured { .. })));
    assert!(matches!(config.repo(2), Err(ConfigError::NotConfigured { .. })));
}

#[test]
fn a_passphrase_comes_from_file_command_or_environment() {
    use secrecy::ExposeSecret as _;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs_err::write(file.path(), "from a file\nsecond line\n").unwrap();
    let read = |source: &KeySource| source.read(1).map(|secret| secret.map(|secret| secret.expose_secret().to_owned()));
    assert_eq!(read(&KeySource::File(file.path().to_owned())).unwrap().as_deref(), Some("from a file"));
    assert_eq!(read(&KeySource::Command(vec!["echo".to_owned(), "from a command".to_owned()])).unwrap().as_deref(), Some("from a command"));
    assert_eq!(read(&KeySource::None).unwrap(), None);
    assert!(read(&KeySource::Command(vec!["false".to_owned()])).is_err());
    assert!(read(&KeySource::Command(vec!["/no/such/program".to_owned()])).is_err());
    assert!(read(&KeySource::Command(vec!["true".to_owned()])).is_err(), "an empty passphrase");
    assert!(read(&KeySource::File("/no/such/file".into())).is_err());
}
