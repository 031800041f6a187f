//! The netlink socket, in the network namespace of the calling thread. Blocking: the kernel has answered when a request was sent.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendmsg, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::message::{self, Element, Message, Rule};

/// A kernel that says nothing for so long is not going to.
const PATIENCE_SECONDS: i64 = 5;
/// The kernel makes its answers no longer than this.
const ANSWER: usize = 64 * 1024;
/// No list of ours is longer, in bytes; one that is was not made by us.
const LIST: usize = 64 << 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Netlink header, and with nfgenmsg.
const HEADER: usize = 16;
const HEADERS: usize = 20;

/// Why nftables did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NftError {
    /// The kernel has no nftables, or not enough of it.
    #[error("the kernel has no usable nf_tables ({0})")]
    Unavailable(#[source] io::Error),
    /// Somebody changed something between our look and our change.
    #[error("other programs change nftables all the time")]
    Overtaken,
    /// What was named is not there, or the kernel lacks a kind of expression.
    #[error("the kernel does not find what the request names")]
    NotThere(#[source] io::Error),
    /// Anything else.
    #[error("nftables: {step}")]
    Failed {
        /// What was being done.
        step: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A connection to nf_tables.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// Opens one in the calling thread's namespace.
    pub(crate) fn open() -> Result<Self, NftError> {
        let netfilter = SockProtocol::NetlinkNetFilter;
        let made = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, netfilter);
        let fd = made.map_err(|errno| match errno {
            Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT => NftError::Unavailable(errno.into()),
            errno => NftError::Failed { step: "open a netlink socket", source: errno.into() },
        })?;
        let failed =
            |errno: Errno| NftError::Failed { step: "prepare a netlink socket", source: errno.into() };
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE_SECONDS)).map_err(failed)?;
        Ok(Self(fd))
    }

    /// The number that every change by anybody raises.
    pub(crate) fn generation(&self) -> Result<u32, NftError> {
        let step = "ask for the generation";
        let answer = match self.ask(&Message::generation(), step, false) {
            // Nobody at the other end: this kernel has nfnetlink without nf_tables.
            Err(NftError::Failed { source, .. }) if is(&source, &[Errno::EINVAL, Errno::EOPNOTSUPP]) => {
                return Err(NftError::Unavailable(source));
            }
            other => other?,
        };
        let number = answer.first().and_then(|attributes| message::generation(attributes));
        number.ok_or_else(|| NftError::Failed { step, source: io::ErrorKind::InvalidData.into() })
    }

    /// The rules of a table, in their order; none when there is no such table.
    pub(crate) fn rules(&self, table: &str) -> Result<Vec<Rule>, NftError> {
        match self.ask(&Message::list_rules(table), "list rules", true) {
            Err(NftError::NotThere(_)) => Ok(Vec::new()),
            answers => Ok(answers?.iter().filter_map(|a| message::rule(a, table)).collect()),
        }
    }

    /// The elements of a set; `None` when there is no such set.
    pub(crate) fn elements(&self, table: &str, set: &str) -> Result<Option<Vec<Element>>, NftError> {
        match self.ask(&Message::list_elements(table, set), "list the elements of a set", true) {
            Err(NftError::NotThere(_)) => Ok(None),
            answers => Ok(Some(answers?.iter().flat_map(|a| message::elements(a)).collect())),
        }
    }

    /// Does all of `messages` or nothing, if nobody changed anything since `generation`. Every message that is refused is answered, and
    /// the first answer is told: the socket is not to be used after an error.
    pub(crate) fn change(&self, generation: u32, messages: &[Message]) -> Result<(), NftError> {
        let step = "change the table";
        let Ok(last) = u32::try_from(messages.len()) else {
            return Err(NftError::Failed { step, source: io::ErrorKind::InvalidInput.into() });
        };
        if last == 0 {
            return Ok(());
        }
        self.send(&Message::batch(generation, messages), step)?;
        loop {
            let buffer = self.receive(step)?;
            for frame in Frames(&buffer) {
                if frame.kind == NLMSG_ERROR {
                    outcome(frame.body, step)?;
                    if frame.sequence == last {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The attributes of each answer.
    fn ask(&self, question: &Message, step: &'static str, many: bool) -> Result<Vec<Vec<u8>>, NftError> {
        self.send(&question.encode(1, 0), step)?;
        let mut answers = Answers::default();
        while !answers.hear(&self.receive(step)?, step)? {
            if !many && !answers.heard.is_empty() {
                break;
            }
        }
        Ok(answers.heard)
    }

    fn send(&self, bytes: &[u8], step: &'static str) -> Result<(), NftError> {
        let failed = |errno: Errno| NftError::Failed { step, source: errno.into() };
        // The kernel counts its own book-keeping, too. Without the right to more, a long list may be refused, and says so.
        let _ = setsockopt(&self.0, sockopt::SndBufForce, &(bytes.len().saturating_mul(4).max(ANSWER)));
        let kernel = NetlinkAddr::new(0, 0);
        sendmsg(self.0.as_raw_fd(), &[IoSlice::new(bytes)], &[], MsgFlags::empty(), Some(&kernel))
            .map_err(failed)
            .map(drop)
    }

    fn receive(&self, step: &'static str) -> Result<Vec<u8>, NftError> {
        let mut buffer = vec![0; ANSWER];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => {
                    buffer.truncate(length);
                    return Ok(buffer);
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(NftError::Failed { step, source: errno.into() }),
            }
        }
    }
}

/// The answers to a question, as they come in.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// The attributes of each.
    pub(crate) heard: Vec<Vec<u8>>,
    /// Bytes received.
    size: usize,
}

impl Answers {
    /// Takes what was received. True when it was the last.
    ///
    /// # Errors
    /// What the kernel refuses, and a list that is longer than any of ours.
    pub(crate) fn hear(&mut self, received: &[u8], step: &'static str) -> Result<bool, NftError> {
        self.size = self.size.saturating_add(received.len());
        if self.size > LIST {
            return Err(NftError::Failed { step, source: io::ErrorKind::FileTooLarge.into() });
        }
        for frame in Frames(received) {
            match frame.kind {
                NLMSG_ERROR => outcome(frame.body, step)?,
                // A list that could not be told to its end is none.
                NLMSG_DONE if !frame.body.is_empty() => return outcome(frame.body, step).map(|()| true),
                NLMSG_DONE => return Ok(true),
                _ => self.heard.push(frame.body.get(HEADERS - HEADER..).unwrap_or_default().to_vec()),
            }
        }
        Ok(false)
    }
}

/// Whether an I/O error is one of these of the kernel's.
pub(super) fn is(error: &io::Error, any_of: &[Errno]) -> bool {
    any_of.iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}

/// What an NLMSG_ERROR says: the negative number of an error, or zero.
fn outcome(body: &[u8], step: &'static str) -> Result<(), NftError> {
    let code = body.first_chunk::<4>().map_or(-(Errno::EINVAL as i32), |code| i32::from_ne_bytes(*code));
    let errno = Errno::from_raw(code.wrapping_neg());
    let source = || io::Error::from(errno);
    match errno {
        _ if code == 0 => Ok(()),
        Errno::ERESTART => Err(NftError::Overtaken),
        Errno::ENOENT => Err(NftError::NotThere(source())),
        Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT => {
            Err(NftError::Unavailable(source()))
        }
        _ => Err(NftError::Failed { step, source: source() }),
    }
}

struct Frame<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

/// The messages in what was received; ends at the first that is not whole.
struct Frames<'a>(&'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let (head, _) = self.0.split_first_chunk::<HEADER>()?;
        let [l0, l1, l2, l3, k0, k1, _, _, s0, s1, s2, s3, ..] = *head;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let body = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        let (kind, sequence) = (u16::from_ne_bytes([k0, k1]), u32::from_ne_bytes([s0, s1, s2, s3]));
        Some(Frame { kind, sequence, body })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_kernels_answers_are_told_apart() {
        let said = |errno: Errno| outcome(&(-(errno as i32)).to_ne_bytes(), "try");
        assert!(outcome(&0_i32.to_ne_bytes(), "try").is_ok());
        assert!(matches!(said(Errno::ERESTART), Err(NftError::Overtaken)));
        assert!(matches!(said(Errno::ENOENT), Err(NftError::NotThere(_))));
        assert!(matches!(said(Errno::EOPNOTSUPP), Err(NftError::Unavailable(_))));
        assert!(matches!(said(Errno::EPERM), Err(NftError::Failed { .. })));
        assert!(outcome(&[], "try").is_err());
    }

    #[test]
    fn a_list_that_ended_by_an_error_is_an_error() {
        let end = |code: i32| {
            let mut frame = 20_u32.to_ne_bytes().to_vec();
            frame.extend(NLMSG_DONE.to_ne_bytes());
            frame.extend([0; 10]);
            frame.extend(code.to_ne_bytes());
            Answers::default().hear(&frame, "list")
        };
        assert!(end(0).unwrap());
        assert!(matches!(end(-(Errno::EINTR as i32)), Err(NftError::Failed { .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_reading_ends(bytes: Vec<u8>) {
            prop_assert!(Frames(&bytes).count() <= bytes.len() / HEADER);
        }
    }
}
