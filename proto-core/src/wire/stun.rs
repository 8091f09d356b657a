//! Just enough of STUN (RFC 8489) to know which session a connectivity check (RFC 8445, 7.3) is for. Nothing here
//! proves who sent it: MESSAGE-INTEGRITY is checked by the session that the user name leads to.

/// Bytes of the STUN header (RFC 8489, section 5).
pub const HEADER_BYTES: usize = 20;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING_REQUEST: u16 = 0x0001;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
/// The longest USERNAME, bytes (RFC 8489, 14.3).
const USERNAME_MAX: usize = 509;

/// A Binding request that names a user and carries an integrity check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindingRequest<'a> {
    /// The user name fragment of the agent that is asked: ours.
    pub local_ufrag: &'a str,
    /// The user name fragment of the agent that asks.
    pub remote_ufrag: &'a str,
}

/// Why a datagram is no Binding request that a session could answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotARequest {
    /// Too short, wrong cookie, or a length that does not match the datagram's.
    NotStun,
    /// STUN, but no Binding request: a response, an indication or another method.
    OtherMessage,
    /// No USERNAME of the form `ours:theirs`, or no MESSAGE-INTEGRITY: nobody we could answer.
    Anonymous,
}

fn u16_at(buf: &[u8], at: usize) -> Option<u16> {
    buf.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_be_bytes)
}

impl<'a> BindingRequest<'a> {
    /// Finds the user name of a Binding request (RFC 8489, sections 5 and 14.3). Attributes after
    /// MESSAGE-INTEGRITY are not looked at, as section 14.5 demands.
    ///
    /// # Errors
    /// [`NotARequest`] if the datagram is something else.
    pub fn parse(datagram: &'a [u8]) -> Result<BindingRequest<'a>, NotARequest> {
        let kind = u16_at(datagram, 0).ok_or(NotARequest::NotStun)?;
        let length = usize::from(u16_at(datagram, 2).ok_or(NotARequest::NotStun)?);
        let body = datagram.get(HEADER_BYTES..).ok_or(NotARequest::NotStun)?;
        if kind & 0xc000 != 0
            || datagram.get(4..8) != Some(&MAGIC_COOKIE[..])
            || length != body.len()
            || length % 4 != 0
        {
            return Err(NotARequest::NotStun);
        }
        if kind != BINDING_REQUEST {
            return Err(NotARequest::OtherMessage);
        }
        let mut rest = body;
        let mut user = None;
        while let (Some(attribute), Some(len)) = (u16_at(rest, 0), u16_at(rest, 2)) {
            let len = usize::from(len);
            let value = rest.get(4..4 + len).ok_or(NotARequest::NotStun)?;
            match attribute {
                USERNAME if user.is_none() => user = Some(value),
                MESSAGE_INTEGRITY => {
                    let (local_ufrag, remote_ufrag) = user
                        .filter(|u| u.len() <= USERNAME_MAX)
                        .and_then(|u| std::str::from_utf8(u).ok())
                        .and_then(|u| u.split_once(':'))
                        .ok_or(NotARequest::Anonymous)?;
                    return Ok(BindingRequest { local_ufrag, remote_ufrag });
                }
                _ => {}
            }
            rest = rest.get(4 + len.next_multiple_of(4)..).unwrap_or_default();
        }
        Err(NotARequest::Anonymous)
    }
}

/// The transaction of a Binding request that names nobody and proves nothing (RFC 8489, 6.1): a question where its sender
/// is. `None` for everything else.
pub fn anonymous(datagram: &[u8]) -> Option<[u8; 12]> {
    let length = usize::from(u16_at(datagram, 2)?);
    let mut rest = datagram.get(HEADER_BYTES..)?;
    let binding = u16_at(datagram, 0)? == BINDING_REQUEST && datagram.get(4..8)? == MAGIC_COOKIE;
    if !binding || length != rest.len() || length % 4 != 0 {
        return None;
    }
    while let (Some(attribute), Some(len)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        // What must be understood and is not, is not passed over (RFC 8489, 6.3).
        if attribute < 0x8000 {
            return None;
        }
        rest = rest.get(4 + usize::from(len).next_multiple_of(4)..)?;
    }
    datagram.get(8..HEADER_BYTES)?.try_into().ok()
}

/// A Binding success response with nothing but XOR-MAPPED-ADDRESS (RFC 8489, 14.2).
pub fn mapped(transaction: [u8; 12], address: std::net::SocketAddr) -> Vec<u8> {
    use std::net::IpAddr;
    let mut mask = MAGIC_COOKIE.to_vec();
    mask.extend_from_slice(&transaction);
    let (family, ip) = match address.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let mut out = 0x0101_u16.to_be_bytes().to_vec();
    out.extend_from_slice(&(8 + ip.len() as u16).to_be_bytes());
    out.extend_from_slice(&mask);
    out.extend_from_slice(&0x0020_u16.to_be_bytes());
    out.extend_from_slice(&(4 + ip.len() as u16).to_be_bytes());
    out.extend_from_slice(&[0, family]);
    out.extend_from_slice(&(address.port() ^ 0x2112).to_be_bytes());
    out.extend(ip.iter().zip(&mask).map(|(a, b)| a ^ b));
    out
}

/// A Binding request that names nobody: asks where its sender is.
pub fn question(transaction: [u8; 12]) -> Vec<u8> {
    let mut out = [BINDING_REQUEST.to_be_bytes(), [0, 0]].concat();
    out.extend_from_slice(&MAGIC_COOKIE);
    out.extend_from_slice(&transaction);
    out
}

/// The XOR-MAPPED-ADDRESS (RFC 8489, 14.2) of a success response to [`question`]. `None` for everything else.
pub fn answered(datagram: &[u8], transaction: [u8; 12]) -> Option<std::net::SocketAddr> {
    let head = datagram.first_chunk::<HEADER_BYTES>()?;
    let mut mask = MAGIC_COOKIE.to_vec();
    mask.extend_from_slice(&transaction);
    if u16_at(head, 0)? != 0x0101 || head.get(4..)? != mask {
        return None;
    }
    let mut rest = datagram.get(HEADER_BYTES..)?;
    loop {
        let (attribute, len) = (u16_at(rest, 0)?, usize::from(u16_at(rest, 2)?));
        let value = rest.get(4..4 + len)?;
        if attribute == 0x0020 {
            let port = u16_at(value, 2)? ^ 0x2112;
            let plain: Vec<u8> = value.get(4..)?.iter().zip(&mask).map(|(a, b)| a ^ b).collect();
            let ip = match value.get(1)? {
                1 => std::net::IpAddr::from(*plain.first_chunk::<4>()?),
                _ => std::net::IpAddr::from(*plain.first_chunk::<16>()?),
            };
            return Some(std::net::SocketAddr::new(ip, port));
        }
        rest = rest.get(4 + len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut out = [kind.to_be_bytes(), (value.len() as u16).to_be_bytes()].concat();
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn message(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
        let body = attributes.concat();
        let mut out = [kind.to_be_bytes(), (body.len() as u16).to_be_bytes()].concat();
        out.extend_from_slice(&MAGIC_COOKIE);
        out.extend_from_slice(&[7; 12]);
        out.extend_from_slice(&body);
        out
    }

    #[test]
    fn the_user_name_is_found_before_the_integrity_check_only() {
        let integrity = attribute(MESSAGE_INTEGRITY, &[0; 20]);
        let user = attribute(USERNAME, b"ours:theirs");
        let good = message(1, &[attribute(0x24, &[0; 4]), user.clone(), integrity.clone()]);
        assert_eq!(
            BindingRequest::parse(&good),
            Ok(BindingRequest { local_ufrag: "ours", remote_ufrag: "theirs" })
        );
        let after = message(1, &[integrity.clone(), user.clone()]);
        assert_eq!(BindingRequest::parse(&after), Err(NotARequest::Anonymous));
        assert_eq!(
            BindingRequest::parse(&message(1, std::slice::from_ref(&user))),
            Err(NotARequest::Anonymous)
        );
        assert_eq!(
            BindingRequest::parse(&message(0x0101, &[user, integrity])),
            Err(NotARequest::OtherMessage)
        );
    }

    #[test]
    fn an_anonymous_request_is_told_from_all_others_and_answered_as_rfc_5769_shows() {
        let software = attribute(0x8022, b"test");
        assert_eq!(anonymous(&message(1, &[])), Some([7; 12]));
        assert_eq!(anonymous(&message(1, &[software])), Some([7; 12]));
        assert_eq!(anonymous(&message(1, &[attribute(USERNAME, b"a:b")])), None);
        assert_eq!(anonymous(&message(0x0101, &[])), None);
        assert_eq!(anonymous(&message(1, &[])[..19]), None);
        // RFC 5769, 2.2 and 2.3: the transaction and the mapped addresses.
        let transaction = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];
        let four = mapped(transaction, "192.0.2.1:32853".parse().unwrap());
        assert_eq!(four[20..], [0, 0x20, 0, 8, 0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
        let six = mapped(transaction, "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap());
        let address =
            [0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79, 0xbc, 0x25, 0xf4, 0xb5, 0xbe, 0xd2, 0xb9, 0xd9];
        assert_eq!((six[3], &six[28..]), (24, &address[..]));
    }

    #[test]
    fn a_question_is_understood_and_its_answer_read_back() {
        let mine = [9; 12];
        assert_eq!(anonymous(&question(mine)), Some(mine));
        for address in ["192.0.2.1:32853", "[2001:db8:1234:5678:11:2233:4455:6677]:1"] {
            let address = address.parse().unwrap();
            let answer = mapped(mine, address);
            assert_eq!(answered(&answer, mine), Some(address));
            assert_eq!(answered(&answer, [8; 12]), None, "another's");
            assert!((0..answer.len()).all(|n| answered(&answer[..n], mine).is_none()));
        }
        assert_eq!(answered(&question(mine), mine), None);
    }

    #[test]
    fn every_cut_of_a_request_is_refused() {
        let good = message(1, &[attribute(USERNAME, b"ours:theirs"), attribute(MESSAGE_INTEGRITY, &[0; 20])]);
        assert!((0..good.len()).all(|n| BindingRequest::parse(&good[..n]).is_err()));
        let mut wrong = good;
        wrong[4] ^= 1;
        assert_eq!(BindingRequest::parse(&wrong), Err(NotARequest::NotStun));
    }

    proptest! {
        #[test]
        fn garbage_with_a_valid_header_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut body = body;
            body.truncate(body.len() / 4 * 4);
            let _ = BindingRequest::parse(&message(1, &[body.clone()]));
            let _ = answered(&message(0x0101, &[body]), [7; 12]);
        }
    }
}
