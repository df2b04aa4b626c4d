//! A breadth-first search through all states of the model. It keeps the whole graph, because it
//! proves two things: no bad state is reachable, and from *every* state a good end is still
//! reachable.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use super::Guards;
use super::model::{Fault, State, Step};

/// How the search ended.
pub struct Searched {
    pub states: usize,
    pub steps: usize,
    /// The first fault with the way to it.
    pub fault: Option<Story>,
    /// States from which no good end can be reached any more.
    pub stuck: usize,
}

pub struct Story {
    pub what: Fault,
    pub way: Vec<Step>,
}

impl fmt::Debug for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}:", self.what)?;
        self.way.iter().enumerate().try_for_each(|(nth, step)| writeln!(f, "{:>4}. {step:?}", nth + 1))
    }
}

/// A state's number is spread by one multiplication: the standard hasher would take most of the
/// time.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers of states are hashed");
    }
    #[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
    fn write_u128(&mut self, code: u128) {
        let folded = (code as u64) ^ ((code >> 64) as u64).rotate_left(29);
        let mixed = (folded ^ (folded >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 29);
    }
}

pub fn search(guards: Guards, asked: &[Fault]) -> Searched {
    let (code, start) = State::start().canonical();
    let mut known: HashMap<u128, u32, BuildHasherDefault<Spread>> = HashMap::default();
    known.insert(code, 0);
    let mut states = vec![start];
    let mut came_from: Vec<Option<(u32, Step)>> = vec![None];
    // From where to where.
    let mut ways: Vec<(u32, u32)> = Vec::new();
    let mut todo = VecDeque::from([0_u32]);
    let mut fault = None;
    while let Some(at) = todo.pop_front() {
        let state = states[at as usize];
        if let Some(what) = state.fault(asked) {
            let mut way = Vec::new();
            let mut back = at;
            while let Some((before, step)) = came_from[back as usize] {
                way.insert(0, step);
                back = before;
            }
            fault = Some(Story { what, way });
            break;
        }
        for step in state.steps(guards) {
            let (code, next) = state.after(step, guards).canonical();
            let to = *known.entry(code).or_insert_with(|| {
                let new = u32::try_from(states.len()).unwrap();
                states.push(next);
                came_from.push(Some((at, step)));
                todo.push_back(new);
                new
            });
            ways.push((to, at));
        }
    }
    let stuck = states.len() - reaching_a_good_end(&states, &mut ways);
    Searched { states: states.len(), steps: ways.len(), fault, stuck }
}

/// Backwards from every good end: how many states have a way to one.
fn reaching_a_good_end(states: &[State], ways: &mut [(u32, u32)]) -> usize {
    ways.sort_unstable();
    let mut good: Vec<bool> = states.iter().map(State::is_over).collect();
    let mut todo: Vec<usize> = (0..states.len()).filter(|at| good[*at]).collect();
    while let Some(at) = todo.pop() {
        let first = ways.partition_point(|(to, _)| (*to as usize) < at);
        for (_, before) in ways[first..].iter().take_while(|(to, _)| *to as usize == at) {
            let before = *before as usize;
            if !good[before] {
                good[before] = true;
                todo.push(before);
            }
        }
    }
    good.iter().filter(|good| **good).count()
}
