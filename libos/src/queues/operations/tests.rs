//! The operation table against a model, and its limits.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::slot::INDEX_BITS;
use super::*;

const QUEUE: QueueDescriptor = QueueDescriptor::from_raw(3);

fn try_submit(table: &mut OperationTable, list: &mut List) -> Result<Token, Error> {
    let (slot, token) = table.submit(QUEUE, OperationKind::Pop, false)?;
    assert!(table.is_unsettled(slot));
    table.settle(slot, list);
    Ok(token)
}

fn submit(table: &mut OperationTable, list: &mut List) -> Token {
    try_submit(table, list).unwrap()
}

/// Takes an outstanding operation off its list.
fn unsettle(table: &mut OperationTable, token: Token, list: &mut List) -> Result<SlotIndex, Error> {
    let (slot, queue) = table.find_outstanding(token)?;
    assert!(queue == QUEUE && !table.is_unsettled(slot));
    table.unsettle(slot, list);
    Ok(slot)
}

fn complete(table: &mut OperationTable, token: Token, list: &mut List) -> Result<(), Error> {
    let slot = unsettle(table, token, list)?;
    assert_eq!(table.complete(slot, Outcome::Pushed), (OperationKind::Pop, false));
    Ok(())
}

fn forget(table: &mut OperationTable, token: Token, list: &mut List) -> Result<(), Error> {
    let slot = unsettle(table, token, list)?;
    table.forget(slot);
    Ok(())
}

fn take_ready(table: &mut OperationTable) -> Option<Token> {
    let taken = table.take_first_ready()?;
    table.completion(taken).map(|completion| completion.token)
}

/// The slots on a list, each checked to know its neighbours. What the first has for a previous one, and the last for a
/// next, means nothing.
fn walk(table: &OperationTable, list: List) -> Vec<Token> {
    let mut tokens = Vec::new();
    let (mut at, mut previous) = (list.head, NO_SLOT);
    assert_eq!(list.head == NO_SLOT, list.tail == NO_SLOT);
    while at != NO_SLOT {
        let slot = &table.slots[at as usize];
        assert!(at == list.head || slot.previous == previous);
        tokens.push(slot.token);
        assert!(tokens.len() <= table.slots.len(), "the list never ends");
        (previous, at) = (at, if at == list.tail { NO_SLOT } else { slot.next });
    }
    tokens
}

#[test]
fn the_ready_list_holds_what_completed_and_nothing_else_however_much_is_outstanding() {
    let mut table = OperationTable::new(20_000);
    let mut list = List::EMPTY;
    let tokens: Vec<Token> = (0..10_000).map(|_| submit(&mut table, &mut list)).collect();
    let completed = [tokens[9_000], tokens[5], tokens[9_999]];
    for token in completed {
        complete(&mut table, token, &mut list).unwrap();
    }
    // What `first_ready` reads is the head of this list: three steps for three completions.
    assert_eq!(walk(&table, table.ready), completed);
    for token in completed {
        assert_eq!(take_ready(&mut table), Some(token));
    }
    assert_eq!(take_ready(&mut table), None);
    assert_eq!((table.outstanding(), table.used()), (9_997, 9_997));
}

#[test]
fn slots_are_used_again_before_new_ones_are_made() {
    let mut table = OperationTable::new(100);
    let mut list = List::EMPTY;
    let mut seen = std::collections::HashSet::new();
    for _ in 0..1_000 {
        let tokens = [submit(&mut table, &mut list), submit(&mut table, &mut list)];
        for token in tokens {
            assert!(token.raw() != 0 && seen.insert(token), "a token is given out once");
            complete(&mut table, token, &mut list).unwrap();
            assert_eq!(take_ready(&mut table), Some(token));
        }
    }
    assert_eq!(table.slots.len() - lone_push::RESERVED_SLOTS, 2);
}

#[test]
fn an_operation_that_completes_at_once_never_gets_onto_a_list_of_its_queue() {
    let mut table = OperationTable::new(1);
    let (slot, token) = table.submit(QUEUE, OperationKind::Push, false).unwrap();
    table.complete(slot, Outcome::Pushed);
    assert!(!table.is_unsettled(slot));
    assert_eq!((table.outstanding(), take_ready(&mut table)), (0, Some(token)));
}

#[test]
fn no_token_is_zero_when_a_generation_begins_anew() {
    let mut table = OperationTable::new(1);
    let mut list = List::EMPTY;
    let first = submit(&mut table, &mut list);
    let index = (first.raw() & INDEX_MASK) as u32;
    let last = token(u64::MAX >> INDEX_BITS, index);
    table.slots[index as usize].token = last;
    forget(&mut table, last, &mut list).unwrap();
    let next = submit(&mut table, &mut list);
    assert_ne!(next.raw(), 0);
    assert_eq!(next, token(0, index));
}

#[derive(Debug, Clone)]
enum Step {
    Submit(usize),
    Complete(usize),
    Take(usize),
    TakeReady,
    Forget(usize),
    Claim(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..2_usize).prop_map(Step::Submit),
        3 => (0..64_usize).prop_map(Step::Complete),
        2 => (0..64_usize).prop_map(Step::Take),
        1 => Just(Step::TakeReady),
        1 => (0..64_usize).prop_map(Step::Forget),
        1 => (0..64_usize).prop_map(Step::Claim),
    ];
    prop::collection::vec(step, 0..200)
}

/// The table as lists of tokens.
#[derive(Default)]
struct Model {
    outstanding: [VecDeque<Token>; 2],
    ready: VecDeque<Token>,
    claimed: Vec<Token>,
}

impl Model {
    fn list_of(&self, token: Token) -> Option<usize> {
        self.outstanding.iter().position(|list| list.contains(&token))
    }

    fn remove(list: &mut VecDeque<Token>, token: Token) -> bool {
        let before = list.len();
        list.retain(|other| *other != token);
        list.len() < before
    }
}

proptest! {
    #[test]
    fn tokens_complete_once_and_lists_keep_their_order(steps in steps()) {
        let mut table = OperationTable::new(20);
        let mut lists = [List::EMPTY; 2];
        let mut model = Model::default();
        let mut tokens: Vec<Token> = Vec::new();
        let pick = |tokens: &[Token], at: usize| tokens.get(at % tokens.len().max(1)).copied();
        for step in steps {
            match step {
                Step::Submit(list) => {
                    match try_submit(&mut table, &mut lists[list]) {
                        Ok(token) => {
                            tokens.push(token);
                            model.outstanding[list].push_back(token);
                        }
                        Err(error) => {
                            prop_assert_eq!(error, Error::TooManyOperations);
                            prop_assert_eq!(table.used(), 20);
                        }
                    }
                }
                Step::Complete(at) => {
                    let Some(token) = pick(&tokens, at) else { continue };
                    let list = model.list_of(token);
                    let completed = complete(&mut table, token, &mut lists[list.unwrap_or(0)]);
                    prop_assert_eq!(completed.is_ok(), list.is_some());
                    if let Some(list) = list {
                        Model::remove(&mut model.outstanding[list], token);
                        if !model.claimed.contains(&token) {
                            model.ready.push_back(token);
                        }
                    }
                }
                Step::Take(at) => {
                    let Some(token) = pick(&tokens, at) else { continue };
                    let outstanding = model.list_of(token).is_some();
                    let claimed = model.claimed.contains(&token);
                    match table.find_claimed(token) {
                        Ok(None) => prop_assert!(outstanding),
                        Ok(Some(slot)) => {
                            prop_assert!(!outstanding);
                            prop_assert_eq!(table.find_completed(token).is_err(), claimed);
                            prop_assert_eq!(table.take(slot).token, token);
                            prop_assert!(Model::remove(&mut model.ready, token) || claimed);
                            model.claimed.retain(|other| *other != token);
                        }
                        Err(_) => prop_assert!(!outstanding && !model.ready.contains(&token) && !claimed),
                    }
                }
                Step::TakeReady => {
                    prop_assert_eq!(take_ready(&mut table), model.ready.pop_front());
                }
                Step::Forget(at) => {
                    let Some(token) = pick(&tokens, at) else { continue };
                    let list = model.list_of(token);
                    let forgotten = forget(&mut table, token, &mut lists[list.unwrap_or(0)]);
                    prop_assert_eq!(forgotten.is_ok(), list.is_some());
                    if let Some(list) = list {
                        Model::remove(&mut model.outstanding[list], token);
                        model.claimed.retain(|other| *other != token);
                    }
                }
                Step::Claim(at) => {
                    let Some(token) = pick(&tokens, at) else { continue };
                    let known = model.list_of(token).is_some() || model.ready.contains(&token);
                    let free = known && !model.claimed.contains(&token);
                    prop_assert_eq!(table.claim(token).is_ok(), free);
                    if free {
                        model.claimed.push(token);
                        Model::remove(&mut model.ready, token);
                    }
                }
            }
            for (list, expected) in lists.iter().zip(&model.outstanding) {
                prop_assert_eq!(walk(&table, *list), Vec::from(expected.clone()));
            }
            prop_assert_eq!(walk(&table, table.ready), Vec::from(model.ready.clone()));
            let outstanding: usize = model.outstanding.iter().map(VecDeque::len).sum();
            prop_assert_eq!(table.outstanding(), outstanding);
            let claimed_outstanding = model.claimed.iter().filter(|token| model.list_of(**token).is_some());
            let unclaimed = outstanding - claimed_outstanding.count() + model.ready.len();
            prop_assert_eq!(table.unclaimed(), unclaimed);
        }
    }
}
