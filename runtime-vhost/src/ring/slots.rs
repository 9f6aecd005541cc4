//! The driver's own account of its descriptors: which are free, and which chain each of the others belongs to.
//! It is in private memory; what the device returns is checked against it.

/// Slots, linked into a free list and into the chains that the device has.
#[derive(Debug)]
pub(super) struct Slots {
    /// The next slot, of the free list or of the chain.
    next: Box<[u16]>,
    /// For the first slot of a chain that the device has: its length. Else 0.
    chain: Box<[u16]>,
    first_free: u16,
    free: u16,
}

impl Slots {
    pub fn new(size: u16) -> Self {
        let next = (1..=size).map(|next| if next == size { 0 } else { next }).collect();
        Self { next, chain: vec![0; usize::from(size)].into(), first_free: 0, free: size }
    }

    #[inline]
    pub fn free(&self) -> u16 {
        self.free
    }

    #[inline]
    pub fn taken(&self) -> u16 {
        self.next.len() as u16 - self.free
    }

    /// Takes a chain of `count` slots, at least one and at most as many as are free, and shows each to `slot` with the
    /// next one, which is without meaning for the last. Returns the first.
    #[inline]
    pub fn take(&mut self, count: u16, mut slot: impl FnMut(u16, u16)) -> u16 {
        debug_assert!(count > 0 && count <= self.free);
        let head = self.first_free;
        let mut at = head;
        for _ in 0..count {
            let next = self.next[usize::from(at)];
            slot(at, next);
            at = next;
        }
        self.first_free = at;
        self.free -= count;
        self.chain[usize::from(head)] = count;
        head
    }

    /// Length of the chain that begins with slot `head`; 0 when the device has none that does.
    #[inline]
    pub fn chain_len(&self, head: u16) -> u16 {
        self.chain.get(usize::from(head)).copied().unwrap_or(0)
    }

    /// Frees the chain that begins with `head`, if there is one, and shows each of its slots to `slot`.
    #[inline]
    pub fn release(&mut self, head: u16, mut slot: impl FnMut(u16)) {
        let count = self.chain_len(head);
        let mut at = head;
        let mut last = head;
        for _ in 0..count {
            slot(at);
            last = at;
            at = self.next[usize::from(at)];
        }
        if count > 0 {
            self.chain[usize::from(head)] = 0;
            self.next[usize::from(last)] = self.first_free;
            self.first_free = head;
            self.free += count;
        }
    }
}
