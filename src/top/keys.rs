//! Keys and what they do: one table, which the help shows.

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::detail::Opened;
use super::rows::View;
use super::state::{Over, State};
use super::table::{COLUMNS, NAME_KEY};

/// Times between two answers that can be chosen.
const PACES: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// Longest filter, characters.
const LONGEST_FILTER: usize = 200;

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Unfold,
    Fold,
    Open,
    Back,
    Filter,
    NextView,
    Show(View),
    Group,
    SortLeft,
    SortRight,
    Pause,
    Faster,
    Slower,
    Help,
    Quit,
}

/// A line of the help.
#[derive(Debug)]
pub struct Key {
    codes: &'static [KeyCode],
    /// How it is written.
    pub shown: &'static str,
    /// What it does, in words.
    pub what: &'static str,
    deed: Deed,
}

const fn key(codes: &'static [KeyCode], shown: &'static str, what: &'static str, deed: Deed) -> Key {
    Key { codes, shown, what, deed }
}

/// All but those that sort, which are the columns'. One without words belongs to the one before it.
pub static KEYS: [Key; 23] = [
    key(&[KeyCode::Up, KeyCode::Char('k')], "Up Down, k j", "another line", Deed::Up),
    key(&[KeyCode::Down, KeyCode::Char('j')], "", "", Deed::Down),
    key(&[KeyCode::PageUp], "PgUp PgDn", "a page", Deed::PageUp),
    key(&[KeyCode::PageDown], "", "", Deed::PageDown),
    key(&[KeyCode::Home], "Home End", "the first, whichever it is; the last", Deed::First),
    key(&[KeyCode::End], "", "", Deed::Last),
    key(&[KeyCode::Right], "Right Left", "open, close what is below a line", Deed::Unfold),
    key(&[KeyCode::Left], "", "", Deed::Fold),
    key(&[KeyCode::Enter], "Enter", "the line by itself, with the last minutes of all figures", Deed::Open),
    key(&[KeyCode::Esc, KeyCode::Backspace], "Esc", "back; takes the filter away", Deed::Back),
    key(&[KeyCode::Char('/')], "/", "filter by words in names, images, paths", Deed::Filter),
    key(&[KeyCode::Tab], "Tab", "pods, containers, the tree of cgroups", Deed::NextView),
    key(&[KeyCode::Char('1')], "1 2 3", "the first, second, third of them", Deed::Show(View::Pods)),
    key(&[KeyCode::Char('2')], "", "", Deed::Show(View::Containers)),
    key(&[KeyCode::Char('3')], "", "", Deed::Show(View::Tree)),
    key(&[KeyCode::Char('g')], "g", "by namespace, or not", Deed::Group),
    key(&[KeyCode::Char('<')], "< >", "sort by the column to the left, right", Deed::SortLeft),
    key(&[KeyCode::Char('>')], "", "", Deed::SortRight),
    key(&[KeyCode::Char(' ')], "Space", "pause", Deed::Pause),
    key(&[KeyCode::Char('-')], "- +", "update more often, less often", Deed::Faster),
    key(&[KeyCode::Char('+')], "", "", Deed::Slower),
    key(&[KeyCode::Char('?'), KeyCode::F(1)], "?", "this help", Deed::Help),
    key(&[KeyCode::Char('q')], "q", "quit, as Ctrl-C; Ctrl-Z suspends, Ctrl-L draws anew", Deed::Quit),
];

/// What is to be done beyond the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// End.
    Quit,
    /// Give the terminal back until continued.
    Suspend,
    /// Draw all of it.
    Redraw,
}

/// Does what a key says.
pub fn press(state: &mut State, event: KeyEvent) -> Effect {
    if event.kind == KeyEventKind::Release {
        return Effect::None;
    }
    if event.modifiers.contains(KeyModifiers::CONTROL) {
        return match event.code {
            KeyCode::Char('c') => Effect::Quit,
            KeyCode::Char('z') => Effect::Suspend,
            KeyCode::Char('l') => Effect::Redraw,
            KeyCode::Char('u') if state.typing => {
                state.filter.clear();
                Effect::None
            }
            _ => Effect::None,
        };
    }
    if state.typing && typed(state, event.code) {
        return Effect::None;
    }
    let deed = KEYS.iter().find(|key| key.codes.contains(&event.code)).map(|key| key.deed);
    if deed == Some(Deed::Quit) {
        return Effect::Quit;
    }
    match (&mut state.over, deed) {
        (_, Some(Deed::Pause)) => state.paused = !state.paused,
        (_, Some(deed @ (Deed::Faster | Deed::Slower))) => pace(state, deed),
        (Over::Help(offset, below), deed) => {
            match deed.and_then(|deed| scrolled(*offset, deed, state.page)) {
                Some(scrolled) => *offset = scrolled,
                None => state.over = below.take().map_or(Over::Table, Over::Cgroup),
            }
        }
        (Over::Cgroup(opened), Some(deed)) => match (scrolled(opened.offset, deed, state.page), deed) {
            (Some(scrolled), _) => opened.offset = scrolled,
            (None, Deed::Back | Deed::Fold) => state.over = Over::Table,
            (None, Deed::Help) => state.over = Over::Help(0, Some(std::mem::take(opened))),
            (None, _) => {}
        },
        (Over::Cgroup(_), None) => {}
        (Over::Table, Some(deed)) => at_table(state, deed),
        (Over::Table, None) => {
            if let KeyCode::Char(letter) = event.code {
                sort(state, letter);
            }
        }
    }
    Effect::None
}

/// Whether the key was one of the filter's.
fn typed(state: &mut State, code: KeyCode) -> bool {
    match code {
        KeyCode::Char(letter) => {
            if state.filter.chars().count() < LONGEST_FILTER {
                state.filter.push(letter);
            }
        }
        KeyCode::Backspace => {
            if state.filter.pop().is_none() {
                state.typing = false;
            }
        }
        KeyCode::Esc => {
            state.filter.clear();
            state.typing = false;
        }
        KeyCode::Enter => state.typing = false,
        _ => return false,
    }
    true
}

/// Where a text stands after a key that moves in it.
fn scrolled(offset: usize, deed: Deed, page: usize) -> Option<usize> {
    Some(match deed {
        Deed::Up => offset.saturating_sub(1),
        Deed::Down => offset + 1,
        Deed::PageUp => offset.saturating_sub(page),
        Deed::PageDown => offset + page,
        Deed::First => 0,
        // Drawing knows where the end is.
        Deed::Last => usize::MAX / 2,
        _ => return None,
    })
}

fn pace(state: &mut State, deed: Deed) {
    let next = match deed {
        Deed::Faster => PACES.iter().rev().find(|pace| **pace < state.pace),
        _ => PACES.iter().find(|pace| **pace > state.pace),
    };
    state.pace = next.copied().unwrap_or(state.pace);
}

fn at_table(state: &mut State, deed: Deed) {
    let lines = state.lines().0;
    let at = state.selected_line(&lines);
    let line = lines.get(at).copied();
    match deed {
        Deed::Up => state.select(at.saturating_sub(1)),
        Deed::Down => state.select(at + 1),
        Deed::PageUp => state.select(at.saturating_sub(state.page)),
        Deed::PageDown => state.select(at + state.page),
        // From here on the top stays in sight, whatever comes to be there.
        Deed::First => {
            state.select(0);
            state.selected = None;
        }
        Deed::Last => state.select(usize::MAX - 1),
        Deed::Unfold => match line {
            Some(line) if !line.open && !line.node.children.is_empty() => toggle(state, at, true),
            _ => state.select(at + 1),
        },
        Deed::Fold => match line {
            Some(line) if line.open && !line.node.children.is_empty() => toggle(state, at, false),
            Some(line) => {
                let above = lines.iter().take(at).rposition(|above| above.depth < line.depth);
                if let Some(above) = above {
                    state.select(above);
                }
            }
            None => {}
        },
        Deed::Open => match line {
            Some(line) if line.node.target.is_some() => {
                let opened = Opened::new(line.node);
                state.select(at);
                state.open(opened);
            }
            Some(line) => toggle(state, at, !line.open),
            None => {}
        },
        Deed::Back => state.filter.clear(),
        Deed::Filter => state.typing = true,
        Deed::NextView => {
            let next = View::ALL.iter().position(|view| *view == state.view).map_or(0, |at| at + 1);
            state.show(View::ALL.get(next).copied().unwrap_or(View::Pods));
        }
        Deed::Show(view) => state.show(view),
        Deed::Group => {
            state.grouped = !state.grouped;
            state.arrange();
        }
        Deed::SortLeft | Deed::SortRight => neighbour(state, deed == Deed::SortRight),
        Deed::Help => state.over = Over::Help(0, None),
        Deed::Pause | Deed::Faster | Deed::Slower | Deed::Quit => {}
    }
    state.keep_in_sight();
}

fn toggle(state: &mut State, at: usize, open: bool) {
    state.select(at);
    if let Some(key) = state.selected.clone() {
        state.toggled.insert(key, open);
    }
}

fn sort(state: &mut State, letter: char) {
    if letter == NAME_KEY {
        state.sort_by(None);
    } else if let Some(column) = COLUMNS.iter().find(|column| column.key == letter) {
        state.sort_by(Some(column));
    }
    state.keep_in_sight();
}

/// Sorts by the column beside the one it is sorted by; names are left of all.
fn neighbour(state: &mut State, right: bool) {
    let here = state.sort.and_then(|sort| COLUMNS.iter().position(|column| column.name == sort.name));
    let next = match (here, right) {
        (None, true) => Some(0),
        (None, false) => None,
        (Some(here), true) => Some((here + 1).min(COLUMNS.len() - 1)),
        (Some(here), false) => here.checked_sub(1),
    };
    if next != here {
        state.sort_by(next.and_then(|next| COLUMNS.get(next)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::tests::{told, type_keys};

    fn selected(state: &State) -> String {
        let lines = state.lines().0;
        lines[state.selected_line(&lines)].node.name.clone()
    }

    #[test]
    fn no_key_means_two_things() {
        let mut codes: Vec<String> =
            KEYS.iter().flat_map(|key| key.codes).map(|code| format!("{code:?}")).collect();
        codes.extend(COLUMNS.iter().map(|column| format!("{:?}", KeyCode::Char(column.key))));
        codes.push(format!("{:?}", KeyCode::Char(NAME_KEY)));
        let all = codes.len();
        codes.sort();
        codes.dedup();
        assert_eq!(codes.len(), all);
    }

    #[test]
    fn lines_are_selected_opened_and_closed() {
        let mut state = told();
        state.page = 3;
        assert_eq!(selected(&state), "shop");
        type_keys(&mut state, "jj");
        assert_eq!(selected(&state), "web-2");
        press(&mut state, KeyCode::Left.into());
        assert_eq!(selected(&state), "shop");
        press(&mut state, KeyCode::Left.into());
        assert!(!state.lines().0[0].open);
        press(&mut state, KeyCode::Right.into());
        press(&mut state, KeyCode::Right.into());
        press(&mut state, KeyCode::Right.into());
        assert_eq!(state.lines().0[2].depth, 2, "containers of the first pod");
        press(&mut state, KeyCode::End.into());
        assert_eq!((selected(&state).as_str(), state.offset), ("redis", state.at - 2));
        press(&mut state, KeyCode::Home.into());
        assert_eq!((selected(&state).as_str(), state.offset), ("shop", 0));
        // A namespace has nothing to show by itself.
        press(&mut state, KeyCode::Enter.into());
        assert!(matches!(state.over, Over::Table) && !state.lines().0[0].open);
        press(&mut state, KeyCode::End.into());
        press(&mut state, KeyCode::Enter.into());
        let wished = Some((1, "/docker/redis1".to_owned()));
        assert_eq!(state.wish().detail, wished);
        type_keys(&mut state, "??");
        assert_eq!(state.wish().detail, wished);
        press(&mut state, KeyCode::Esc.into());
        assert_eq!(state.wish().detail, None);
        assert_eq!(selected(&state), "redis");
    }

    #[test]
    fn what_is_selected_stays_so_when_the_order_changes() {
        let mut state = told();
        type_keys(&mut state, "gj");
        let name = selected(&state);
        for keys in ["m", "m", "n", ">", ">", "<", "a"] {
            type_keys(&mut state, keys);
            assert_eq!(selected(&state), name, "{keys}");
        }
    }

    #[test]
    fn sorting() {
        let mut state = told();
        let check = |state: &mut State, keys: &str, expected: (Option<&str>, bool)| {
            type_keys(state, keys);
            assert_eq!((state.sort.map(|sort| sort.name), state.down), expected, "{keys}");
        };
        check(&mut state, "", (Some("cpu"), true));
        check(&mut state, "c", (Some("cpu"), false));
        check(&mut state, "m", (Some("memory"), true));
        check(&mut state, "n", (None, false));
        check(&mut state, "n", (None, true));
        check(&mut state, "<", (None, true));
        check(&mut state, ">", (Some("cpu"), true));
        check(&mut state, ">>", (Some("memory"), true));
        check(&mut state, "3", (None, false));
        check(&mut state, "1", (Some("cpu"), true));
    }

    #[test]
    fn typing_a_filter() {
        let mut state = told();
        type_keys(&mut state, "/qweb-1");
        assert_eq!(state.filter, "qweb-1");
        assert_eq!(state.lines().0.len(), 0);
        press(&mut state, KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL));
        type_keys(&mut state, "web-1");
        press(&mut state, KeyCode::Enter.into());
        assert!(!state.typing);
        assert_eq!(state.lines().1, 1);
        press(&mut state, KeyCode::Esc.into());
        assert_eq!((state.filter.as_str(), state.lines().1), ("", 4));
    }

    #[test]
    fn pace_pause_and_end() {
        let mut state = told();
        type_keys(&mut state, "--- ");
        assert_eq!((state.wish().pace, state.wish().paused), (Duration::from_secs(1), true));
        type_keys(&mut state, "+++ ");
        assert_eq!((state.wish().pace, state.wish().paused), (Duration::from_secs(10), false));
        type_keys(&mut state, "?");
        assert!(matches!(state.over, Over::Help(0, None)));
        type_keys(&mut state, "j");
        assert!(matches!(state.over, Over::Help(1, None)));
        type_keys(&mut state, "x");
        assert!(matches!(state.over, Over::Table));
        assert_eq!(press(&mut state, KeyCode::Char('q').into()), Effect::Quit);
        assert_eq!(
            press(&mut state, KeyEvent::new(KeyCode::Char('z'), KeyModifiers::CONTROL)),
            Effect::Suspend
        );
    }
}
