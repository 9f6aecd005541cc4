//! Whose datagrams to a group are wanted (RFC 3376 section 3.1, RFC 4607).

use std::net::IpAddr;

use libos::Error;
pub use libos::FilterMode;

/// Most sources in one filter, and of one group over all who are in it.
pub(super) const MAX_SOURCES: usize = 64;

/// Whose datagrams to a group somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFilter {
    mode: FilterMode,
    /// In the order of their addresses.
    sources: Vec<IpAddr>,
}

impl SourceFilter {
    /// Everybody's.
    pub const EVERYBODY: Self = Self { mode: FilterMode::Exclude, sources: Vec::new() };

    /// What a list of sources says, in whatever order it has them.
    ///
    /// # Errors
    /// [`Error::NoBuffers`] when there are too many.
    pub fn of(mode: FilterMode, sources: &[IpAddr]) -> Result<Self, Error> {
        if sources.len() > MAX_SOURCES {
            return Err(Error::NoBuffers);
        }
        let mut sources = sources.to_vec();
        sources.sort_unstable();
        sources.dedup();
        Ok(Self { mode, sources })
    }

    /// One source's alone.
    #[must_use]
    pub fn only(source: IpAddr) -> Self {
        Self { mode: FilterMode::Include, sources: vec![source] }
    }

    /// What its list means.
    #[must_use]
    pub const fn mode(&self) -> FilterMode {
        self.mode
    }

    /// The sources listed.
    #[must_use]
    pub fn sources(&self) -> &[IpAddr] {
        &self.sources
    }

    /// True when what `source` sends is wanted.
    #[must_use]
    pub fn admits(&self, source: IpAddr) -> bool {
        let listed = self.sources.binary_search(&source).is_ok();
        match self.mode {
            FilterMode::Include => listed,
            FilterMode::Exclude => !listed,
        }
    }

    /// The filter with one source more in its list.
    ///
    /// # Errors
    /// [`Error::AddressNotAvailable`] when the source is listed already, [`Error::NoBuffers`] when the list is full.
    pub fn with(&self, source: IpAddr) -> Result<Self, Error> {
        let Err(place) = self.sources.binary_search(&source) else { return Err(Error::AddressNotAvailable) };
        if self.sources.len() >= MAX_SOURCES {
            return Err(Error::NoBuffers);
        }
        let mut more = self.clone();
        more.sources.insert(place, source);
        Ok(more)
    }

    /// The filter with one source less in its list.
    ///
    /// # Errors
    /// [`Error::AddressNotAvailable`] when the source is not listed.
    pub fn without(&self, source: IpAddr) -> Result<Self, Error> {
        let place = self.sources.binary_search(&source).map_err(|_| Error::AddressNotAvailable)?;
        let mut less = self.clone();
        less.sources.remove(place);
        Ok(less)
    }

    /// True when nobody's datagrams are wanted, which is not to be in the group at all (RFC 3376 section 3.1).
    #[must_use]
    pub fn is_of_nobody(&self) -> bool {
        self.mode == FilterMode::Include && self.sources.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    #[test]
    fn a_list_names_who_is_wanted_or_who_is_not() {
        let only = SourceFilter::only(source(2)).with(source(1)).unwrap();
        let but = SourceFilter::EVERYBODY.with(source(1)).unwrap().with(source(2)).unwrap();
        for (number, listed) in [(1, true), (2, true), (3, false)] {
            assert_eq!((only.admits(source(number)), but.admits(source(number))), (listed, !listed));
        }
        assert_eq!(only.with(source(1)), Err(Error::AddressNotAvailable));
        assert_eq!(but.without(source(3)), Err(Error::AddressNotAvailable));
        let nobody = only.without(source(1)).unwrap().without(source(2)).unwrap();
        assert!(nobody.is_of_nobody() && !SourceFilter::EVERYBODY.is_of_nobody());
    }

    #[test]
    fn a_whole_list_is_put_in_order_and_names_nobody_twice() {
        let listed = SourceFilter::of(FilterMode::Include, &[3, 1, 3, 2].map(source)).unwrap();
        assert_eq!(listed.sources(), [1, 2, 3].map(source));
        assert_eq!(SourceFilter::of(FilterMode::Exclude, &[]), Ok(SourceFilter::EVERYBODY));
        assert!(SourceFilter::of(FilterMode::Include, &[]).unwrap().is_of_nobody());
        let many: Vec<IpAddr> = (1..=65).map(source).collect();
        assert_eq!(SourceFilter::of(FilterMode::Include, &many), Err(Error::NoBuffers));
        assert_eq!(SourceFilter::of(FilterMode::Include, &many[..64]).unwrap().sources(), &many[..64]);
    }

    #[test]
    fn a_list_has_a_limit() {
        let full = (1..=64).fold(SourceFilter::EVERYBODY, |list, number| list.with(source(number)).unwrap());
        assert_eq!(full.with(source(65)), Err(Error::NoBuffers));
    }
}
