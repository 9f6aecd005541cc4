//! Which neighbour has to give way to a new one: lists by use, each ordered by age, O(1) throughout.

/// How much a neighbour is worth keeping, from the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    /// Nothing was sent to it since it was learned. A flood of requests from invented neighbours
    /// makes many of these, and they push out nobody else.
    Unused = 0,
    /// Packets go there.
    Used = 1,
    /// Its address is being looked for and packets wait: never gives way.
    Pending = 2,
}

const LISTS: usize = 3;
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Link {
    newer: u32,
    older: u32,
    list: Option<Worth>,
}

const UNLINKED: Link = Link { newer: NONE, older: NONE, list: None };

#[derive(Debug, Clone, Copy)]
struct Ends {
    newest: u32,
    oldest: u32,
}

/// The lists, over slab indices.
#[derive(Debug)]
pub(super) struct AgeLists {
    links: Vec<Link>,
    ends: [Ends; LISTS],
}

impl AgeLists {
    pub(super) fn new() -> Self {
        Self { links: Vec::new(), ends: [Ends { newest: NONE, oldest: NONE }; LISTS] }
    }

    /// Puts `index` at the new end of a list, out of the one it was in.
    pub(super) fn touch(&mut self, index: u32, worth: Worth) {
        self.remove(index);
        let ends = &mut self.ends[worth as usize];
        let older = ends.newest;
        ends.newest = index;
        if older == NONE {
            ends.oldest = index;
        }
        if let Some(link) = self.links.get_mut(older as usize) {
            link.newer = index;
        }
        if self.links.len() <= index as usize {
            self.links.resize(index as usize + 1, UNLINKED);
        }
        self.links[index as usize] = Link { newer: NONE, older, list: Some(worth) };
    }

    /// Takes `index` out of the list it is in, if it is in one.
    pub(super) fn remove(&mut self, index: u32) {
        let Some(link) = self.links.get_mut(index as usize) else { return };
        let Link { newer, older, list } = std::mem::replace(link, UNLINKED);
        let Some(worth) = list else { return };
        match self.links.get_mut(newer as usize) {
            Some(link) => link.older = older,
            None => self.ends[worth as usize].newest = older,
        }
        match self.links.get_mut(older as usize) {
            Some(link) => link.newer = newer,
            None => self.ends[worth as usize].oldest = newer,
        }
    }

    /// The one that gives way: the oldest of the least worth.
    pub(super) fn victim(&self) -> Option<u32> {
        [Worth::Unused, Worth::Used]
            .map(|worth| self.ends[worth as usize].oldest)
            .into_iter()
            .find(|oldest| *oldest != NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unused_give_way_before_the_used_and_the_old_before_the_new() {
        let mut lists = AgeLists::new();
        for (index, worth) in
            [(0, Worth::Used), (1, Worth::Unused), (2, Worth::Pending), (3, Worth::Unused), (4, Worth::Used)]
        {
            lists.touch(index, worth);
        }
        lists.touch(1, Worth::Unused);
        let mut order = Vec::new();
        while let Some(victim) = lists.victim() {
            order.push(victim);
            lists.remove(victim);
        }
        assert_eq!(order, [3, 1, 0, 4]);
    }

    #[test]
    fn entries_leave_from_the_middle_and_change_lists() {
        let mut lists = AgeLists::new();
        for index in 0..4 {
            lists.touch(index, Worth::Used);
        }
        lists.remove(1);
        lists.remove(1);
        lists.touch(2, Worth::Pending);
        lists.touch(0, Worth::Used);
        assert_eq!(lists.victim(), Some(3));
        lists.remove(3);
        assert_eq!(lists.victim(), Some(0));
        lists.remove(0);
        assert_eq!(lists.victim(), None);
    }
}
