//! What the dialer of a lane sends: whatever is queued, in its order, and now and then a question whether the other lives.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{MissedTickBehavior, interval};

use crate::frame::{FrameHead, FrameKind};
use crate::pulse::Pulse;
use crate::writing::FrameWriter;

/// Something that waits to be sent.
pub(crate) trait Outgoing: Send {
    /// It is its turn, as the `number`th on this connection: what is sent of it. From here on bytes of it may be with the other.
    /// Nothing if nobody wants it sent any more.
    fn begin(&mut self, number: u64) -> Option<(FrameHead, Vec<Bytes>)>;
}

/// Sends until the connection ends, and says why it did. The queue is bounded by whoever fills it.
pub(crate) async fn send_all<T: Outgoing>(
    queue: &mut UnboundedReceiver<T>,
    writer: &mut FrameWriter<impl AsyncWrite + Unpin>,
    pulse: &Pulse,
    ping_every: Duration,
) -> Result<Infallible, String> {
    let mut pings = interval(ping_every);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    loop {
        tokio::select! {
            // A queue that is never empty must not keep us from asking.
            biased;
            _ = pings.tick() => {
                let ping = FrameHead::new(FrameKind::Ping, 0);
                writer.frame_at_once(ping, &[]).await.map_err(|fault| fault.to_string())?;
                pulse.asked();
            }
            queued = queue.recv() => {
                let Some(mut queued) = queued else { return Err("nobody sends any more".to_owned()) };
                if let Some((head, pieces)) = queued.begin(number) {
                    writer.frame(head, &pieces).await.map_err(|fault| fault.to_string())?;
                    number += 1;
                }
                if queue.is_empty() {
                    writer.flush().await.map_err(|fault| fault.to_string())?;
                }
            }
        }
    }
}
