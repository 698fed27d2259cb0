//! A repository inside a [`World`], and a backup brought back by hand.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bygone::pg::{Major, SegmentSize};
use bygone::repo::cluster::{ClusterIdentity, register};
use bygone::repo::layout::ClusterFolder;
use bygone::repo::manifest::{EntryKind, Manifest};
use bygone::repo::{Cipher, ObjectKind, Repository, Secret};
use bygone::store::local::LocalStore;

use super::cluster::TestCluster;
use super::run::Runner;
use super::world::World;

/// A repository in a directory of the world.
pub(crate) struct TestRepository {
    pub(crate) path: PathBuf,
    key: Option<String>,
}

impl TestRepository {
    /// Makes repository number `number` for the cluster, encrypted, and adds it to the configuration.
    pub(crate) fn init(world: &World, number: u32, cluster: &TestCluster) -> TestRepository {
        TestRepository::init_with(world, number, cluster, Some(&("3f".repeat(20) + "0123456789abcdef01234567")))
    }

    /// The same with this key, or not encrypted.
    pub(crate) fn init_with(world: &World, number: u32, cluster: &TestCluster, key: Option<&str>) -> TestRepository {
        let path = world.dir(&format!("repo{number}"));
        let protection =
            key.map_or("cipher = \"none\"".to_owned(), |key| format!("key-file = {:?}", world.file(&format!("repo{number}.key"), key)));
        let config = fs_err::read_to_string(world.config()).unwrap_or_else(|_| {
            format!("[cluster.main]\ndata-directory = {:?}\nconnection = {:?}\n", cluster.data(), cluster.connection())
        });
        let added = format!("[repo.{number}]\ntype = \"posix\"\npath = {path:?}\n{protection}\n");
        world.file("bygone.toml", config + &added);
        let made = TestRepository { path, key: key.map(str::to_owned) };
        made.create(cluster);
        made
    }

    fn create(&self, cluster: &TestCluster) {
        let store = Arc::new(LocalStore::new(&self.path));
        let cipher = if self.key.is_some() { Cipher::Aes256CbcHmacSha256 } else { Cipher::None };
        let repository = Repository::create(store, cipher, self.secret().as_ref()).expect("an empty directory takes a repository");
        let control = bygone::archive::incarnation::read_control(cluster.data()).expect("pg_control of the cluster");
        register(&repository, "main", &ClusterIdentity::of(&control), false).expect("an empty repository takes a cluster");
        Runner::new("chown").by_root().args(["-R", "postgres:postgres"]).arg(&self.path).ok();
    }

    fn secret(&self) -> Option<Secret> {
        self.key.as_ref().map(|key| Secret::new(key.clone().into_bytes()))
    }

    /// Opens it from inside the test.
    pub(crate) fn open(&self) -> Repository {
        Repository::open(Arc::new(LocalStore::new(&self.path)), self.secret().as_ref()).expect("the repository opens")
    }

    /// Labels of the backups that have a manifest.
    pub(crate) fn backups(&self, cluster: &TestCluster) -> Vec<String> {
        let (repository, folder) = (self.open(), folder(cluster));
        let labels = repository.store().list_dir(&folder.backups()).expect("the repository can be listed");
        let labels = labels.into_iter().map(|label| label.trim_end_matches('/').to_owned());
        labels.filter(|label| repository.has_object(&folder.manifest(label)).expect("the repository answers")).collect()
    }

    pub(crate) fn manifest(&self, cluster: &TestCluster, label: &str) -> Manifest {
        let bytes = self.open().read_object(&folder(cluster).manifest(label), ObjectKind::Manifest).expect("the manifest can be read");
        Manifest::decode(&bytes).expect("the manifest is sound")
    }

    /// Takes a segment out of the archive, as an accident would.
    pub(crate) fn remove_segment(&self, cluster: &TestCluster, file: &str) {
        self.open().store().delete(&folder(cluster).segment_file(file)).expect("the segment can be removed");
    }

    /// Writes a backup's files to `name` in the world, tablespaces beside it, ready for `TestCluster::start` with this restore command.
    pub(crate) fn restore(&self, world: &World, cluster: &TestCluster, label: &str, name: &str, command: &str) -> TestCluster {
        let target = world.dir(name);
        let manifest = self.manifest(cluster, label);
        self.write_files(&manifest, &folder(cluster), &target);
        fs_err::write(target.join("backup_label"), &manifest.header.backup_label).expect("backup_label");
        fs_err::write(target.join("recovery.signal"), "").expect("recovery.signal");
        Runner::new("chown").by_root().args(["-R", "-L", "postgres:postgres"]).arg(&target).ok();
        let restored = TestCluster::existing(world, cluster.major(), name, &target);
        restored.configure(&["archive_mode = off", &format!("restore_command = '{command}'"), "recovery_target_action = 'promote'"]);
        restored
    }

    fn write_files(&self, manifest: &Manifest, folder: &ClusterFolder, target: &Path) {
        let repository = self.open();
        for entry in &manifest.entries {
            let path = target.join(&entry.path);
            match &entry.kind {
                EntryKind::Directory => {
                    fs_err::create_dir_all(&path).expect("directory of a backup");
                    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("its mode");
                }
                EntryKind::Symlink { .. } => {
                    let oid = entry.path.file_name().and_then(|n| n.to_str()).expect("pg_tblspc/<oid>");
                    let place = target.with_extension(oid);
                    fs_err::create_dir_all(&place).expect("directory of a tablespace");
                    Runner::new("chown").by_root().args(["postgres:postgres"]).arg(&place).ok();
                    fs_err::os::unix::fs::symlink(&place, &path).expect("link to a tablespace");
                }
                EntryKind::File(data) => {
                    let bytes = data.place.map_or(Vec::new(), |place| {
                        let key = folder.backup_data(manifest.header.label.as_str(), place.object);
                        let object = repository.open_object(&key, ObjectKind::BackupData).expect("the object is there");
                        object.read_main(place.offset..place.offset + data.size).expect("its bytes are sound")
                    });
                    assert_eq!(crc32c::crc32c(&bytes), data.crc32c, "{}", entry.path.display());
                    fs_err::write(&path, bytes).expect("file of a backup");
                    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(entry.mode)).expect("its mode");
                }
            }
        }
    }
}

/// Where the cluster lies in a repository.
pub(crate) fn folder(cluster: &TestCluster) -> ClusterFolder {
    let system_id = cluster.psql("select system_identifier from pg_control_system()").parse().expect("a number");
    let major = Major::from_number(u32::from(cluster.major())).expect("a supported version");
    ClusterFolder::new("main", major, system_id)
}

/// Size of the cluster's WAL segments.
pub(crate) fn segment_size(cluster: &TestCluster) -> SegmentSize {
    let bytes = cluster.psql("select bytes_per_wal_segment from pg_control_init()").parse().expect("a number");
    SegmentSize::new(bytes).expect("a valid size")
}
