//! Which port a clone's server listens on.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

use super::{Claim, CloneError, Clones};

/// Above Postgres's own ports, below those that the kernel gives to outgoing connections.
const FIRST: u16 = 15_432;
const COUNT: u16 = 10_000;

/// A port for a new clone: `wanted`, or one that is free and that no other clone has, running or not.
///
/// The search begins anywhere: two clones made at the same moment in two directories, which do not know of each other, shall not meet.
///
/// # Errors
/// Those of [`check_wanted`]; [`CloneError::NoPort`].
pub fn choose(clones: &Clones, claim: &Claim, wanted: Option<u16>) -> Result<u16, CloneError> {
    if let Some(port) = wanted {
        return check_wanted(clones, claim, port, None).map(|()| port);
    }
    let taken: Vec<u16> = taken(clones)?.into_iter().map(|(_, port)| port).collect();
    let begin = getrandom::u32().unwrap_or_default();
    let ports = (0..COUNT).map(|n| FIRST + u16::try_from(begin.wrapping_add(u32::from(n)) % u32::from(COUNT)).unwrap_or(n));
    ports.into_iter().find(|port| !taken.contains(port) && is_free(*port)).ok_or(CloneError::NoPort)
}

/// Refuses a port that somebody listens on, or that another clone than `own` has, running or not.
///
/// # Errors
/// [`CloneError::PortOfClone`], [`CloneError::PortInUse`].
pub fn check_wanted(clones: &Clones, _claim: &Claim, wanted: u16, own: Option<&str>) -> Result<(), CloneError> {
    match taken(clones)?.into_iter().find(|(name, port)| *port == wanted && own != Some(name)) {
        Some((name, port)) => Err(CloneError::PortOfClone { port, name }),
        None => check(wanted),
    }
}

/// Clones' ports. One whose record cannot be read takes none that could be known.
fn taken(clones: &Clones) -> Result<Vec<(String, u16)>, CloneError> {
    let mut taken = Vec::new();
    for name in clones.names()? {
        taken.extend(clones.find(&name)?.record().map(|record| (name, record.port)));
    }
    Ok(taken)
}

/// Refuses a port that somebody listens on.
///
/// # Errors
/// [`CloneError::PortInUse`].
pub fn check(port: u16) -> Result<(), CloneError> {
    if is_free(port) { Ok(()) } else { Err(CloneError::PortInUse { port }) }
}

fn is_free(port: u16) -> bool {
    let in_use = |result: std::io::Result<TcpListener>| result.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse);
    !in_use(TcpListener::bind((Ipv4Addr::LOCALHOST, port))) && !in_use(TcpListener::bind((Ipv6Addr::LOCALHOST, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_somebody_listens_on_is_not_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(matches!(check(port), Err(CloneError::PortInUse { .. })));
        drop(listener);
        check(port).unwrap();
    }
}
