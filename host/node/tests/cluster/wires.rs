//! What lies between nodes, so that one can be cut off: nothing that it sends arrives, and nothing arrives there, but no connection ends.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use vouch_node::PeerSettings;
use vouch_transport::PeerSecurity;

/// Nodes listen here, under the ports of their wires, which nobody else uses at this address.
const BEHIND: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// Where a hello says how many bytes follow its first twelve, and who dials (`transport/docs/frames.md`).
const OPENING: usize = 12;
const LENGTH_AT: usize = 10;
const DIALER_AT: usize = 40;

/// The wires of a cluster whose nodes show no certificates.
#[derive(Clone, Default)]
pub(crate) struct Wires(Arc<(Mutex<Option<u64>>, Condvar)>);

impl Wires {
    /// How a node is reached through a wire of its own.
    pub(crate) fn to(&self, node: u64) -> PeerSettings {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let front = listener.local_addr().unwrap();
        let behind = SocketAddr::new(BEHIND, front.port());
        let wires = self.clone();
        std::thread::spawn(move || {
            for dialed in listener.incoming() {
                let Ok(dialed) = dialed else { return };
                let wires = wires.clone();
                std::thread::spawn(move || wires.connect(dialed, node, behind));
            }
        });
        let advertise = Some(front.to_string());
        PeerSettings { advertise, ..PeerSettings::new(behind.to_string(), PeerSecurity::Insecure) }
    }

    /// Nothing comes to this node or from it any more.
    pub(crate) fn cut_off(&self, node: u64) {
        *self.cut() = Some(node);
    }

    /// All is as before, over new connections: what was on its way is lost.
    pub(crate) fn mend(&self) {
        *self.cut() = None;
        self.0.1.notify_all();
    }

    fn cut(&self) -> MutexGuard<'_, Option<u64>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets through what the two ends of a connection say to each other.
    fn connect(&self, mut dialed: TcpStream, node: u64, behind: SocketAddr) {
        let mut hello = vec![0; OPENING];
        let Ok(()) = dialed.read_exact(&mut hello) else { return };
        let follows = u16::from_le_bytes([hello[LENGTH_AT], hello[LENGTH_AT + 1]]);
        hello.resize(OPENING + usize::from(follows), 0);
        let Ok(()) = dialed.read_exact(&mut hello[OPENING..]) else { return };
        let dialer = u64::from_le_bytes(hello[DIALER_AT..DIALER_AT + 8].try_into().unwrap());
        let ends = [node, dialer];
        if !self.lets_through(ends) {
            return;
        }
        let Ok(mut listens) = TcpStream::connect(behind) else { return };
        let Ok(()) = listens.write_all(&hello) else { return };
        let back = (listens.try_clone().unwrap(), dialed.try_clone().unwrap());
        let wires = self.clone();
        std::thread::spawn(move || wires.pass_on(back, ends));
        self.pass_on((dialed, listens), ends);
    }

    /// Whether the wire between these is whole; if it is not, that is told when it is again.
    fn lets_through(&self, ends: [u64; 2]) -> bool {
        let is_cut = |cut: &mut Option<u64>| cut.is_some_and(|node| ends.contains(&node));
        let mut cut = self.cut();
        let was_cut = is_cut(&mut cut);
        drop(self.0.1.wait_while(cut, is_cut));
        !was_cut
    }

    /// Passes on what one says until the wire is cut, or one of the two ends.
    fn pass_on(&self, (mut from, mut to): (TcpStream, TcpStream), ends: [u64; 2]) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if !self.lets_through(ends) || to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}
