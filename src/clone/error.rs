//! What can go wrong with a clone.

use std::path::PathBuf;

use thiserror::Error;

use crate::advice::Advice;
use crate::pg::Major;

/// Why something could not be done with a clone.
#[derive(Debug, Error)]
pub enum CloneError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Mount(#[from] bygone_mount::MountError),
    #[error("a clone cannot be called {name:?}")]
    BadName { name: String },
    #[error("there is a clone {name} already")]
    Exists { name: String },
    #[error("there is no clone {name}")]
    Unknown { name: String, known: Vec<String> },
    #[error("{} does not say what this clone is", path.display())]
    Record { path: PathBuf, what: String },
    #[error("clone {name} was never mounted")]
    NeverMounted { name: String },
    #[error("there is no user {name:?} on this host")]
    NoUser { name: String },
    #[error("user {user} cannot get to {}", path.display())]
    OutOfReach { path: PathBuf, user: String },
    #[error("the path of the server's socket would be too long: {}", path.display())]
    SocketPath { path: PathBuf },
    #[error("{} belongs to {owner}", path.display())]
    OfAnother { path: PathBuf, owner: String },
    #[error("clones in {} are closed to this user", directory.display())]
    Closed {
        directory: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("clone {name} is being started by another process")]
    Starting { name: String },
    #[error("port {port} is in use")]
    PortInUse { port: u16 },
    #[error("port {port} is that of clone {name}")]
    PortOfClone { port: u16, name: String },
    #[error("no free port was found")]
    NoPort,
    #[error("the programs of Postgres {major} are not on this host")]
    NoPrograms { major: Major, looked: Vec<String> },
    #[error("{program} cannot be run")]
    Program {
        program: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("Postgres did not {what}")]
    Server {
        what: &'static str,
        said: String,
        /// `None` if it has been removed.
        log: Option<PathBuf>,
    },
    #[error("{} is still mounted", path.display())]
    StillMounted { path: PathBuf },
    #[error("process {pid} does not end")]
    Undying { pid: u32 },
}

impl Advice for CloneError {
    fn detail(&self) -> Option<String> {
        match self {
            CloneError::Unknown { known, .. } if known.is_empty() => Some("there are none".to_owned()),
            CloneError::Unknown { known, .. } => Some(format!("there are: {}", known.join(", "))),
            CloneError::Record { what, .. } => Some(what.clone()),
            CloneError::NoPrograms { looked, .. } => Some(format!("looked in {}", looked.join(", "))),
            CloneError::Server { said, .. } if !said.is_empty() => Some(said.clone()),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            CloneError::BadName { .. } => "Use lower-case letters, digits, - and _, at most 40, a letter or digit first.".to_owned(),
            CloneError::Exists { name } => format!("Choose another name, or remove it: bygone clone destroy {name}"),
            CloneError::Record { .. } => "If the clone is of no use, remove it: bygone clone destroy NAME".to_owned(),
            CloneError::NeverMounted { name } => format!("Making it was interrupted. Remove it: bygone clone destroy {name}"),
            CloneError::NoUser { .. } => "Name the user that the server shall run as with --owner, or with clone.user.".to_owned(),
            CloneError::OutOfReach { .. } => {
                "Set clone.directory to a place that this user may enter, for example below /var/lib, or chmod o+x the way there."
                    .to_owned()
            }
            CloneError::SocketPath { .. } => "Set clone.directory to a shorter path.".to_owned(),
            CloneError::Mount(error) => return error.hint(),
            CloneError::Unknown { .. } => "Those that there are: bygone clone list".to_owned(),
            CloneError::OfAnother { owner, .. } => format!("Run this as {owner}, or as root."),
            CloneError::Closed { .. } => {
                "Run this as whoever made them, or as root, or keep clones of your own: set clone.directory to a directory of yours."
                    .to_owned()
            }
            CloneError::PortInUse { .. } | CloneError::PortOfClone { .. } | CloneError::NoPort => "Choose one with --port.".to_owned(),
            CloneError::NoPrograms { .. } => "Install that version, or say where it is with cluster.NAME.bin-directory.".to_owned(),
            CloneError::Server { log, .. } => return log.as_ref().map(|log| format!("Its log is {}.", log.display())),
            CloneError::StillMounted { path } => {
                format!("Somebody has a file open there or works in it (fuser -vm {} shows who).", path.display())
            }
            CloneError::Io(_) | CloneError::Program { .. } | CloneError::Starting { .. } | CloneError::Undying { .. } => return None,
        })
    }
}
