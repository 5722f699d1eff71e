//! What a pull asks for, as its first frame says it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::frame::{FrameHead, FrameKind};

/// The most bytes of a name.
pub(super) const NAME_MAX_BYTES: usize = 4096;

/// A stretch of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PullRequest {
    pub(super) name: String,
    pub(super) from: u64,
    pub(super) len: u64,
}

impl PullRequest {
    pub(super) fn encode(&self) -> (FrameHead, Bytes) {
        let mut payload = BytesMut::with_capacity(8 + self.name.len());
        payload.put_u64_le(self.len);
        payload.put_slice(self.name.as_bytes());
        (FrameHead::new(FrameKind::Pull, self.from), payload.freeze())
    }

    pub(super) fn decode(head: FrameHead, mut payload: Bytes) -> Option<Self> {
        if head.kind != FrameKind::Pull || !(8..=8 + NAME_MAX_BYTES).contains(&payload.len()) {
            return None;
        }
        let len = payload.get_u64_le();
        let name = str::from_utf8(&payload).ok()?.to_owned();
        head.number.checked_add(len)?;
        Some(Self { name, from: head.number, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read_back_and_what_ends_nowhere_is_refused() {
        let request = PullRequest { name: "snapshot/7".to_owned(), from: 5, len: 9 };
        let (head, payload) = request.encode();
        assert_eq!((head.number, &payload[..]), (5, &b"\x09\0\0\0\0\0\0\0snapshot/7"[..]));
        assert_eq!(PullRequest::decode(head, payload.clone()), Some(request.clone()));
        assert_eq!(PullRequest::decode(FrameHead { number: u64::MAX, ..head }, payload.clone()), None);
        assert_eq!(PullRequest::decode(FrameHead::new(FrameKind::Chunk, 5), payload), None);
        assert_eq!(PullRequest::decode(head, Bytes::from_static(b"\x09\0\0\0\0\0\0")), None);
        assert_eq!(PullRequest::decode(head, Bytes::from_static(b"\x09\0\0\0\0\0\0\0\xff")), None);
        let longest = PullRequest { name: "x".repeat(NAME_MAX_BYTES), ..request };
        let (head, payload) = longest.encode();
        assert_eq!(PullRequest::decode(head, payload), Some(longest.clone()));
        let (head, payload) = PullRequest { name: "x".repeat(NAME_MAX_BYTES + 1), ..longest }.encode();
        assert_eq!(PullRequest::decode(head, payload), None);
    }
}
