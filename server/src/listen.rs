//! Listening sockets. Core 0 accepts for all and hands each connection to the core with the fewest: with
//! SO_REUSEPORT the kernel spreads by hash, and fifty clients over two threads end up thirty to twenty.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::connection::{Listener, Stream, show_addr};

enum Socketed {
    Tcp(TcpListener),
    Unix(UnixListener, String),
}

/// What a TCP port is opened with.
#[derive(Clone, Copy, Debug)]
pub struct TcpOptions {
    /// Connections the kernel may queue.
    pub backlog: u32,
    /// How long what was sent may stay unacknowledged, in milliseconds; 0: as the kernel thinks.
    pub user_timeout_ms: u32,
}

/// One listening socket.
pub struct Listening {
    socket: Socketed,
    /// What its clients may do.
    pub kind: Listener,
    user_timeout_ms: u32,
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socketed::Tcp(socket) => socket.as_fd(),
            Socketed::Unix(socket, _) => socket.as_fd(),
        }
    }
}

impl Listening {
    /// Listens on a TCP port: on all addresses of both families if `bind` is empty.
    pub fn tcp(bind: &[String], port: u16, kind: Listener, options: TcpOptions) -> io::Result<Vec<Self>> {
        let addresses: Vec<SocketAddr> = if bind.is_empty() {
            // One socket for both families where there is IPv6, else IPv4 alone.
            match Self::open((Ipv6Addr::UNSPECIFIED, port).into(), kind, options, false) {
                Ok(both) => return Ok(vec![both]),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
                Err(_) => vec![(Ipv4Addr::UNSPECIFIED, port).into()],
            }
        } else {
            let mut addresses = Vec::new();
            for name in bind {
                // As in Redis, a leading `-` means that the address may be missing on this machine.
                let name = name.strip_prefix('-').unwrap_or(name);
                match name {
                    "*" => addresses.push((Ipv4Addr::UNSPECIFIED, port).into()),
                    "::*" => addresses.push((Ipv6Addr::UNSPECIFIED, port).into()),
                    _ => match name.parse::<IpAddr>() {
                        Ok(ip) => addresses.push((ip, port).into()),
                        Err(_) => addresses.extend(std::net::ToSocketAddrs::to_socket_addrs(&(name, port))?),
                    },
                }
            }
            addresses
        };
        let mut sockets = Vec::new();
        let mut port = port;
        for mut address in addresses {
            // With port 0 the first socket picks, and the others follow.
            address.set_port(port);
            let optional = bind
                .iter()
                .any(|name| name.strip_prefix('-').is_some_and(|ip| ip == address.ip().to_string()));
            match Self::open(address, kind, options, true) {
                Ok(socket) => {
                    port = socket.port().unwrap_or(port);
                    sockets.push(socket);
                }
                Err(error) if optional => tracing::warn!(%address, %error, "not listening"),
                Err(error) => return Err(error),
            }
        }
        Ok(sockets)
    }

    fn open(address: SocketAddr, kind: Listener, options: TcpOptions, only_v6: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(only_v6)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(options.backlog.clamp(16, 65_535) as i32)?;
        Ok(Listening { socket: Socketed::Tcp(socket.into()), kind, user_timeout_ms: options.user_timeout_ms })
    }

    /// The bare TCP socket, for a thread that accepts in its own way.
    pub fn into_tcp(self) -> Option<TcpListener> {
        match self.socket {
            Socketed::Tcp(socket) => Some(socket),
            Socketed::Unix(..) => None,
        }
    }

    /// Listens on a unix socket, replacing a left-over file that nobody listens on.
    pub fn unix(path: &Path, mode: Option<u32>) -> io::Result<Self> {
        if path.exists() && std::os::unix::net::UnixStream::connect(path).is_err() {
            std::fs::remove_file(path)?;
        }
        let socket = UnixListener::bind(path)?;
        if let Some(mode) = mode {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        }
        socket.set_nonblocking(true)?;
        Ok(Listening {
            socket: Socketed::Unix(socket, path.display().to_string()),
            kind: Listener::Unix,
            user_timeout_ms: 0,
        })
    }

    /// The bound port, if it is TCP.
    pub fn port(&self) -> Option<u16> {
        match &self.socket {
            Socketed::Tcp(socket) => socket.local_addr().ok().map(|addr| addr.port()),
            Socketed::Unix(..) => None,
        }
    }

    /// Takes one connection: the stream and both addresses as CLIENT LIST shows them. None if there is none.
    ///
    /// After `keepalive_s` seconds of silence the kernel asks whether the peer is still there; 0: it never does.
    pub fn accept(&self, keepalive_s: u32) -> io::Result<Option<(Stream, String, String)>> {
        loop {
            let accepted = match &self.socket {
                Socketed::Tcp(socket) => socket.accept().map(|(stream, addr)| {
                    let laddr = stream.local_addr().map_or_else(|_| String::new(), show_addr);
                    (Stream::Tcp(stream), show_addr(addr), laddr)
                }),
                Socketed::Unix(socket, path) => socket
                    .accept()
                    .map(|(stream, _)| (Stream::Unix(stream), format!("{path}:0"), format!("{path}:0"))),
            };
            match accepted {
                Ok((stream, addr, laddr)) => {
                    // A peer that is gone already makes these fail; the first read will tell.
                    match &stream {
                        Stream::Tcp(tcp) => {
                            let _ = tcp.set_nonblocking(true);
                            let _ = tcp.set_nodelay(true);
                            let socket = socket2::SockRef::from(tcp);
                            if keepalive_s > 0 {
                                let _ = socket.set_tcp_keepalive(&keepalive(keepalive_s));
                            }
                            if self.user_timeout_ms > 0 {
                                let patience = Duration::from_millis(u64::from(self.user_timeout_ms));
                                let _ = socket.set_tcp_user_timeout(Some(patience));
                            }
                        }
                        Stream::Unix(unix) => {
                            let _ = unix.set_nonblocking(true);
                        }
                    }
                    return Ok(Some((stream, addr, laddr)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                // The peer gave up between its SYN and now, or a signal came: there may be another one.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Three probes within the interval, as Redis does.
fn keepalive(seconds: u32) -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(u64::from(seconds)))
        .with_interval(Duration::from_secs(u64::from(seconds / 3).max(1)))
        .with_retries(3)
}
