//! Mounts a copy-on-write view of a local directory: `loopback SOURCE MOUNTPOINT [--overlay DIR] [--allow-other] [--writeback] [--no-passthrough] [--blocks PART]...`
//!
//! For trying the mount out and measuring it against the plain directory. Files whose path contains a PART are kept in blocks, the others whole.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people at a terminal")]

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use bygone_mount::{Attr, Entry, FileId, Keep, Kind, Mount, Options, OverlayOptions, Source, SourceError};

struct Known {
    path: PathBuf,
    attr: Attr,
    file: Option<Arc<std::fs::File>>,
}

#[derive(Default)]
struct Table {
    known: Vec<Known>,
    ids: HashMap<PathBuf, FileId>,
}

struct Loopback {
    blocks: Vec<String>,
    table: Mutex<Table>,
}

fn unreadable(error: std::io::Error) -> SourceError {
    if error.kind() == std::io::ErrorKind::NotFound { SourceError::NotFound } else { SourceError::Unreadable(error.into()) }
}

impl Loopback {
    fn new(root: PathBuf, blocks: Vec<String>) -> Result<Self, SourceError> {
        let this = Self { blocks, table: Mutex::default() };
        this.id(root)?;
        Ok(this)
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn id(&self, path: PathBuf) -> Result<FileId, SourceError> {
        let mut table = self.table();
        if let Some(id) = table.ids.get(&path) {
            return Ok(*id);
        }
        let metadata = fs_err::symlink_metadata(&path).map_err(unreadable)?;
        let kind = match metadata.file_type() {
            kind if kind.is_dir() => Kind::Directory,
            kind if kind.is_symlink() => Kind::Symlink,
            _ => Kind::File,
        };
        let in_blocks = self.blocks.iter().any(|part| path.to_string_lossy().contains(part));
        let attr = Attr {
            kind,
            size: metadata.len(),
            mode: metadata.permissions().mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            modified: metadata.modified().map_err(unreadable)?,
            keep: if in_blocks { Keep::Blocks } else { Keep::Whole },
        };
        let id = FileId(table.known.len() as u64);
        table.known.push(Known { path: path.clone(), attr, file: None });
        table.ids.insert(path, id);
        Ok(id)
    }

    fn with<T>(&self, id: FileId, use_it: impl FnOnce(&mut Known) -> T) -> Result<T, SourceError> {
        let index = usize::try_from(id.0).map_err(|_| SourceError::NotFound)?;
        self.table().known.get_mut(index).map(use_it).ok_or(SourceError::NotFound)
    }

    fn path(&self, id: FileId) -> Result<PathBuf, SourceError> {
        self.with(id, |known| known.path.clone())
    }
}

impl Source for Loopback {
    fn root(&self) -> FileId {
        FileId(0)
    }

    fn attr(&self, id: FileId) -> Result<Attr, SourceError> {
        self.with(id, |known| known.attr)
    }

    fn lookup(&self, dir: FileId, name: &OsStr) -> Result<FileId, SourceError> {
        self.id(self.path(dir)?.join(name))
    }

    fn lookup_ready(&self, dir: FileId, name: &OsStr) -> Option<Result<FileId, SourceError>> {
        Some(self.lookup(dir, name))
    }

    fn list(&self, dir: FileId) -> Result<Vec<Entry>, SourceError> {
        let mut entries = Vec::new();
        for entry in fs_err::read_dir(self.path(dir)?).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let id = self.id(entry.path())?;
            entries.push(Entry { name: entry.file_name(), id, kind: self.attr(id)?.kind });
        }
        Ok(entries)
    }

    fn read_link(&self, id: FileId) -> Result<OsString, SourceError> {
        Ok(fs_err::read_link(self.path(id)?).map_err(unreadable)?.into_os_string())
    }

    fn read(&self, id: FileId, offset: u64, buf: &mut [u8]) -> Result<usize, SourceError> {
        let open = |known: &mut Known| match &known.file {
            Some(file) => Ok(Arc::clone(file)),
            None => {
                let file = Arc::new(fs_err::File::open(&known.path)?.into_parts().0);
                known.file = Some(Arc::clone(&file));
                Ok(file)
            }
        };
        let file = self.with(id, open)?.map_err(unreadable)?;
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset + filled as u64).map_err(unreadable)? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    }

    fn read_ready(&self, id: FileId, offset: u64, buf: &mut [u8]) -> Option<usize> {
        self.read(id, offset, buf).ok()
    }
}

fn main() -> ExitCode {
    let mut places = Vec::new();
    let (mut overlay, mut blocks) = (None, Vec::new());
    let mut options = Options::new("");
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--overlay" => overlay = args.next(),
            "--blocks" => blocks.extend(args.next()),
            "--allow-other" => options.allow_other = true,
            "--writeback" => options.writeback = true,
            "--no-passthrough" => options.passthrough = false,
            _ => places.push(PathBuf::from(arg)),
        }
    }
    let [source, mountpoint] = places.as_slice() else {
        eprintln!("usage: loopback SOURCE MOUNTPOINT [--overlay DIR] [--allow-other] [--writeback] [--no-passthrough] [--blocks PART]...");
        return ExitCode::FAILURE;
    };
    options.mountpoint.clone_from(mountpoint);
    options.overlay = overlay.map(|path| OverlayOptions { path: path.into(), identity: source.display().to_string() });
    let source = match Loopback::new(source.clone(), blocks) {
        Ok(source) => Arc::new(source),
        Err(error) => {
            eprintln!("error: {}: {error}", source.display());
            return ExitCode::FAILURE;
        }
    };
    match Mount::start(source, &options) {
        Ok(mount) => {
            println!("mounted at {}", mount.mountpoint().display());
            let ended = mount.wait();
            println!("{:?}", mount.stats());
            if let Err(error) = &ended {
                eprintln!("error: {error}");
            }
            if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                eprintln!("detail: {error}");
                cause = error.source();
            }
            if let Some(hint) = error.hint() {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}
