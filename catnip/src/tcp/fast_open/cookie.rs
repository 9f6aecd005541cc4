//! The cookie as it stands in a SYN's or SYN-ACK's option (RFC 7413, section 4.1.1).

/// Fewest and most bytes of a cookie.
const MIN_BYTES: usize = 4;
const MAX_BYTES: usize = 16;

/// A Fast Open cookie. One without bytes asks for a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FastOpenCookie {
    len: u8,
    bytes: [u8; MAX_BYTES],
}

impl FastOpenCookie {
    /// The request for a cookie.
    pub const REQUEST: Self = Self { len: 0, bytes: [0; MAX_BYTES] };

    /// The cookie of these bytes, or the request when there are none; `None` for a length that no cookie has.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if !Self::is_length(bytes.len()) {
            return None;
        }
        let mut cookie = Self { len: bytes.len() as u8, ..Self::REQUEST };
        cookie.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(cookie)
    }

    /// True for a length that a cookie, or the request for one, may have: 4 to 16 bytes and even (RFC 7413,
    /// section 4.1.1).
    #[must_use]
    pub(crate) const fn is_length(len: usize) -> bool {
        len == 0 || (len >= MIN_BYTES && len <= MAX_BYTES && len.is_multiple_of(2))
    }

    /// True for a request.
    #[must_use]
    pub const fn is_request(&self) -> bool {
        self.len == 0
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Number of its bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// True for a request, which has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl From<[u8; 8]> for FastOpenCookie {
    fn from(bytes: [u8; 8]) -> Self {
        let mut cookie = Self { len: 8, ..Self::REQUEST };
        for (place, byte) in cookie.bytes.iter_mut().zip(bytes) {
            *place = byte;
        }
        cookie
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_has_4_to_16_bytes_and_an_even_number_of_them() {
        for len in 0..=20 {
            let bytes = vec![7; len];
            let cookie = FastOpenCookie::new(&bytes);
            let right = len == 0 || (4..=16).contains(&len) && len % 2 == 0;
            assert_eq!(cookie.is_some(), right, "{len}");
            assert!(cookie.is_none_or(|cookie| cookie.as_bytes() == bytes && cookie.len() == len));
        }
    }
}
