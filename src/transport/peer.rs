//! Whose the other end of a connection is: the word of the kernel, where it gives one.
//!
//! A Unix socket carries the peer's user. For a TCP connection within the machine Linux tells who owns the socket at the other
//! end (sock_diag(7)); nobody has to send anything for it, and nobody can lie. What is not certain is unknown, never a guess.

#[cfg(target_os = "linux")]
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// A user, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uid(pub u32);

impl Uid {
    /// Whether whoever runs as this user may do what we may: it is our user, or root, who may anyway.
    pub fn is_ours_or_root(self) -> bool {
        #[cfg(unix)]
        {
            self.0 == 0 || self.0 == rustix::process::geteuid().as_raw()
        }
        #[cfg(not(unix))]
        false
    }
}

/// The user at the other end of a Unix socket. `None`: the system does not say.
#[cfg(unix)]
pub fn of_unix(stream: &tokio::net::UnixStream) -> Option<Uid> {
    stream.peer_cred().ok().map(|credentials| Uid(credentials.uid()))
}

/// What the kernel tells of the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// It is this user's.
    Is(Uid),
    /// It is of some user whom our user namespace does not know.
    Unmapped,
    /// Nobody has taken it yet from who listens (accept(2)), and whoever does may be anybody.
    Nobody,
    /// It has been closed, it is not of this machine, or the system does not say.
    Unknown,
}

/// Asks who owns the other ends of TCP connections. One for each listener, so that no descriptor is missing when many connect.
pub struct Owners {
    #[cfg(target_os = "linux")]
    diag: Option<std::sync::Mutex<sock_diag::SockDiag>>,
}

impl Owners {
    /// Ready to ask. Where the system cannot tell, every answer is `None`.
    pub fn new() -> Owners {
        Owners {
            #[cfg(target_os = "linux")]
            diag: sock_diag::SockDiag::open()
                .inspect_err(|e| tracing::debug!("sock_diag: {e}"))
                .ok()
                .map(std::sync::Mutex::new),
        }
    }

    /// Who owns the socket at the other end, if that is certain.
    pub fn of_tcp(&self, stream: &TcpStream) -> Option<Uid> {
        match self.owner_of_tcp(stream) {
            Owner::Is(uid) => Some(uid),
            Owner::Unmapped | Owner::Nobody | Owner::Unknown => None,
        }
    }

    /// Who owns the socket at the other end.
    #[cfg_attr(not(target_os = "linux"), expect(clippy::unused_self, reason = "other systems do not tell"))]
    pub fn owner_of_tcp(&self, stream: &TcpStream) -> Owner {
        #[cfg(target_os = "linux")]
        {
            let (Ok(theirs), Ok(ours)) = (stream.peer_addr(), stream.local_addr()) else { return Owner::Unknown };
            let theirs: SocketAddr = theirs;
            if !theirs.ip().to_canonical().is_loopback() {
                return Owner::Unknown;
            }
            let Some(diag) = &self.diag else { return Owner::Unknown };
            let mut diag = diag.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match diag.owner(theirs, ours) {
                // In a user namespace whoever is not mapped looks like this one, and that may be how we look ourselves.
                Ok(sock_diag::Found::User(owner)) if Some(owner) == diag.unmapped => Owner::Unmapped,
                Ok(sock_diag::Found::User(owner)) => Owner::Is(Uid(owner)),
                Ok(sock_diag::Found::NotAccepted) => Owner::Nobody,
                Ok(sock_diag::Found::Gone) => Owner::Unknown,
                Err(e) => {
                    tracing::debug!(%theirs, "sock_diag: {e}");
                    Owner::Unknown
                }
            }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = stream;
            Owner::Unknown
        }
    }
}

impl Default for Owners {
    fn default() -> Owners {
        Owners::new()
    }
}

#[cfg(target_os = "linux")]
mod sock_diag {
    //! One question of sock_diag(7), and its answer. The numbers are those of `linux/inet_diag.h` and `linux/netlink.h`.

    use rustix::fd::OwnedFd;
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};
    use std::io::{Error, ErrorKind, Result};
    use std::net::{IpAddr, SocketAddr};

    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const NLM_F_REQUEST: u16 = 1;
    const NLMSG_ERROR: u16 = 2;
    const IPPROTO_TCP: u8 = 6;
    const HEADER: usize = 16;
    /// `struct inet_diag_req_v2`.
    const REQUEST: usize = 56;
    /// `struct inet_diag_msg`: where the user and the inode are, and where it ends.
    const UID: usize = 64;
    const INODE: usize = 68;
    const REPLY: usize = 72;
    /// States in which a connection has both its ends: established, and closed from one side. Not one that is only being made: it
    /// may have been begun by somebody else when the first is gone.
    const STATES: [u8; 4] = [1, 4, 5, 8];
    /// States of one that a listener has and nobody has accepted: established, closed from our side, and still being made, as it
    /// stays until something is sent to a listener that wants that (TCP_DEFER_ACCEPT in tcp(7)).
    const STATES_BEFORE: [u8; 4] = [1, 3, 8, 12];
    /// Asked for at most, so that messages for a question that was given up do not keep us.
    const MESSAGES_MAX: usize = 16;

    /// What is at an end of a connection.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) enum Found {
        /// A socket of this user's.
        User(u32),
        /// One that no program has yet.
        NotAccepted,
        /// None, or one that no program has any more: what is sent there is read by nobody.
        Gone,
    }

    pub(super) struct SockDiag {
        socket: OwnedFd,
        sequence: u32,
        /// How users are shown that our user namespace does not know.
        pub(super) unmapped: Option<u32>,
    }

    impl SockDiag {
        pub(super) fn open() -> Result<SockDiag> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::SOCK_DIAG))?;
            let overflow = std::fs::read_to_string("/proc/sys/kernel/overflowuid").ok();
            let unmapped = overflow.and_then(|text| text.trim().parse().ok());
            Ok(SockDiag { socket, sequence: 0, unmapped })
        }

        /// Whose the socket is with the local address `local` that is connected to `remote`.
        pub(super) fn owner(&mut self, local: SocketAddr, remote: SocketAddr) -> Result<Found> {
            self.sequence = self.sequence.wrapping_add(1);
            send(&self.socket, &question(self.sequence, local, remote), SendFlags::empty())?;
            let mut buffer = [0; 512];
            for _ in 0..MESSAGES_MAX {
                // The kernel has answered by now: it does so within send(2).
                let (read, _) = recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
                if let Some(answer) = answer(buffer.get(..read).unwrap_or_default(), self.sequence) {
                    return answer;
                }
            }
            Err(Error::from(ErrorKind::InvalidData))
        }
    }

    fn question(sequence: u32, local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
        let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let mut out = Vec::with_capacity(HEADER + REQUEST);
        let length = u32::try_from(HEADER + REQUEST).expect("a small number");
        out.extend(length.to_ne_bytes());
        out.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        out.extend(NLM_F_REQUEST.to_ne_bytes());
        out.extend(sequence.to_ne_bytes());
        out.extend([0; 4]);
        out.extend([u8::try_from(family.as_raw()).expect("a small number"), IPPROTO_TCP, 0, 0]);
        // All states: which one it is, is looked at in the answer.
        out.extend(u32::MAX.to_ne_bytes());
        out.extend(local.port().to_be_bytes());
        out.extend(remote.port().to_be_bytes());
        for address in [local.ip(), remote.ip()] {
            match address {
                IpAddr::V4(v4) => {
                    out.extend(v4.octets());
                    out.extend([0; 12]);
                }
                IpAddr::V6(v6) => out.extend(v6.octets()),
            }
        }
        // Any interface, and no cookie.
        out.extend([0; 4]);
        out.extend([0xff; 8]);
        out
    }

    /// `None`: it answers another question.
    fn answer(message: &[u8], sequence: u32) -> Option<Result<Found>> {
        let number = |from: usize| Some(u32::from_ne_bytes(message.get(from..from + 4)?.try_into().ok()?));
        let kind = message.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes)?;
        if number(8)? != sequence {
            return None;
        }
        if kind == NLMSG_ERROR {
            let code = number(HEADER)?.cast_signed();
            let error = Error::from_raw_os_error(code.saturating_neg());
            return Some(if error.kind() == ErrorKind::NotFound { Ok(Found::Gone) } else { Err(error) });
        }
        let body = message.get(HEADER..HEADER + REPLY)?;
        if kind != SOCK_DIAG_BY_FAMILY {
            return Some(Err(Error::from(ErrorKind::InvalidData)));
        }
        let (state, inode) = (body[1], number(HEADER + INODE)?);
        Some(Ok(match inode {
            // Without an inode the socket is not, or no longer, anybody's: the user would be said to be root.
            0 if STATES_BEFORE.contains(&state) => Found::NotAccepted,
            0 => Found::Gone,
            _ if STATES.contains(&state) => Found::User(number(HEADER + UID)?),
            _ => Found::Gone,
        }))
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use proptest::prelude::*;

        proptest! {
            #[test]
            fn no_answer_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), sequence in any::<u32>()) {
                let _read = answer(&bytes, sequence);
            }
        }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    async fn pair(address: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(address).await.unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    /// Who listens may be anybody, and so may be who accepts in the end.
    #[tokio::test]
    async fn a_connection_that_nobody_has_accepted_is_nobodys() {
        let owners = Owners::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        assert_eq!(owners.owner_of_tcp(&client), Owner::Nobody);
        client.write_all(b"ping\n").await.unwrap();
        assert_eq!(owners.owner_of_tcp(&client), Owner::Nobody);
        let (server, _) = listener.accept().await.unwrap();
        assert_eq!(owners.owner_of_tcp(&client), Owner::Is(Uid(rustix::process::geteuid().as_raw())));
        drop(server);
        assert_eq!(owners.owner_of_tcp(&client), Owner::Unknown, "what is sent there is read by nobody");
    }

    #[tokio::test]
    async fn both_ends_of_a_connection_are_told_whose_the_other_is() {
        let (owners, me) = (Owners::new(), Uid(rustix::process::geteuid().as_raw()));
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (client, server) = pair(address).await;
            assert_eq!(owners.of_tcp(&server), Some(me), "{address}");
            assert_eq!(owners.of_tcp(&client), Some(me), "{address}");
            assert!(me.is_ours_or_root());
        }
    }

    #[tokio::test]
    async fn a_half_closed_end_still_has_an_owner_and_a_closed_one_has_none() {
        use tokio::io::AsyncWriteExt;
        let owners = Owners::new();
        let (mut client, server) = pair("127.0.0.1:0").await;
        client.shutdown().await.unwrap();
        assert!(owners.of_tcp(&server).is_some());
        drop(client);
        assert_eq!(owners.of_tcp(&server), None);
    }

    /// Without a connection the kernel tells of the listener on that port, which is somebody else's.
    #[tokio::test]
    async fn a_listener_is_not_the_other_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut diag = sock_diag::SockDiag::open().unwrap();
        let nobody = "127.0.0.1:1".parse().unwrap();
        assert_eq!(diag.owner(listener.local_addr().unwrap(), nobody).unwrap(), sock_diag::Found::Gone);
    }
}
