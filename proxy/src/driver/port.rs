//! Where a server is told to listen.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use socket2::{Domain, Socket, Type};

/// Ports handed to servers of this process: between our look and the server's bind the kernel may offer one again.
static LEASED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port that no other server of this process is given meanwhile.
#[derive(Debug)]
pub(super) struct Lease(u16);

impl Lease {
    /// Takes a port the kernel says is free on all addresses.
    ///
    /// # Errors
    /// None is free, or no socket can be had.
    pub(super) fn take() -> io::Result<Self> {
        // Held until one is found, so that the kernel does not offer them again.
        let mut refused = Vec::new();
        for _ in 0..64 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
            let bound = socket.local_addr()?.as_socket();
            let port = bound.ok_or_else(|| io::Error::other("no port"))?.port();
            if leased().insert(port) {
                return Ok(Self(port));
            }
            refused.push(socket);
        }
        Err(io::Error::other("no free port"))
    }

    /// The port.
    pub(super) fn port(&self) -> u16 {
        self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        leased().remove(&self.0);
    }
}

fn leased() -> MutexGuard<'static, BTreeSet<u16>> {
    LEASED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns whether somebody listens there already, who would answer in the place of our server.
pub(super) fn is_taken(address: SocketAddr) -> bool {
    let attempt = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?; // connections that linger from the last one do not count
        socket.bind(&address.into())?;
        socket.listen(1)
    };
    attempt().is_err_and(|error: io::Error| error.kind() == io::ErrorKind::AddrInUse)
}

/// Replaces `${PORT}`.
pub(super) fn fill(text: &str, port: u16) -> String {
    text.replace("${PORT}", &port.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_differ_and_end() {
        let leases: Vec<Lease> = (0..50).map(|_| Lease::take().unwrap()).collect();
        let ports: BTreeSet<u16> = leases.iter().map(Lease::port).collect();
        assert_eq!(ports.len(), 50);
        drop(leases);
        assert!(leased().is_disjoint(&ports));
    }

    #[test]
    fn who_listens_is_seen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(is_taken(address));
        drop(listener);
        assert!(!is_taken(address));
    }

    #[test]
    fn the_port_is_filled_in_wherever_it_stands() {
        assert_eq!(fill("--a=${PORT}:${PORT}", 80), "--a=80:80");
        assert_eq!(fill("$PORT {PORT}", 80), "$PORT {PORT}");
    }
}
