//! The matrix: sets of models that may run together, written as expressions.

use std::collections::{BTreeSet, HashMap};

use super::rooms::Share;
use crate::import::{Fields, Leaf};

/// A set of models, by their places in the list of all.
type Set = BTreeSet<usize>;

/// Most sets that expressions may stand for.
const SETS: usize = 1000;
/// Most steps that one expression may take, and the deepest it may be.
const STEPS: usize = 20_000;
const DEEPEST: usize = 50;
/// Most models for which an arrangement is looked for.
const MODELS: usize = 64;

/// Reads a matrix, and gives each model its share.
pub(super) fn shares(matrix: &Fields<'_>, ids: &[&str]) -> HashMap<String, Share> {
    let place = |id: &str| ids.iter().position(|known| *known == id);
    let mut words: HashMap<String, usize> = HashMap::new();
    if let Some(vars) = matrix.map("vars") {
        for (name, id) in matrix.pairs("vars") {
            match place(id.as_str()) {
                Some(index) => drop(words.insert(name.as_str().to_owned(), index)),
                None => vars.lost(name.as_str(), format!("there is no model `{id}`")),
            }
        }
    }
    let written = matrix.pairs("sets");
    let mut sets: Vec<Set> = Vec::new();
    for (name, text) in &written {
        let mut reader = Reader {
            words: &|word| words.get(word).copied().or_else(|| place(word)),
            sets: &written,
            steps: 0,
        };
        match reader.expression(text.as_str(), 0) {
            Ok(found) if sets.len() + found.len() <= SETS => sets.extend(found),
            Ok(_) => lose(matrix, name, "it stands for too many sets"),
            Err(note) => lose(matrix, name, &note),
        }
    }
    arrange(ids, &sets)
}

fn lose(matrix: &Fields<'_>, name: &Leaf, note: &str) {
    if let Some(sets) = matrix.map("sets") {
        sets.lost(name.as_str(), note);
    }
}

/// Finds the models that have room beside any other, one after the other, as long as more have company
/// so. What fits together afterwards is always a part of a set.
fn arrange(ids: &[&str], sets: &[Set]) -> HashMap<String, Share> {
    let mut light: Set = Set::new();
    let mut best = 0;
    if ids.len() <= MODELS {
        loop {
            let tried = (0..ids.len()).filter(|index| !light.contains(index));
            let tried = tried.map(|index| {
                let mut more = light.clone();
                more.insert(index);
                (company(&more, sets), index)
            });
            let Some((count, index)) =
                tried.max_by_key(|(count, index)| (*count, usize::MAX - index))
            else {
                break;
            };
            if count <= best {
                break;
            }
            best = count;
            light.insert(index);
        }
    }
    let listed: Vec<usize> = light.iter().copied().collect();
    Share::arranged(ids, &listed, &|index| beside(index, &light, sets))
}

/// True for a model that may run with all light ones at once.
fn beside(index: usize, light: &Set, sets: &[Set]) -> bool {
    let fits = |set: &Set| set.contains(&index) && light.is_subset(set);
    !light.is_empty() && sets.iter().any(fits)
}

/// Counts how many models have company with these light ones, over all sets; 0 when the light ones cannot run together.
fn company(light: &Set, sets: &[Set]) -> usize {
    if !sets.iter().any(|set| light.is_subset(set)) {
        return 0;
    }
    let together = |set: &Set| {
        let mut others = set.difference(light);
        let heavy = others.any(|index| beside(*index, light, sets));
        (set.intersection(light).count() + usize::from(heavy)).saturating_sub(1)
    };
    sets.iter().map(together).sum()
}

/// Reads expressions: `&` binds closer than `|`, `+name` stands for another set.
struct Reader<'r> {
    words: &'r dyn Fn(&str) -> Option<usize>,
    sets: &'r [(Leaf, Leaf)],
    steps: usize,
}

impl Reader<'_> {
    fn expression(&mut self, text: &str, depth: usize) -> Result<Vec<Set>, String> {
        let mut rest = text;
        let found = self.either(&mut rest, depth)?;
        match rest.trim_start() {
            "" => Ok(found),
            rest => Err(format!("`{}` is not understood", start(rest))),
        }
    }

    fn either(&mut self, rest: &mut &str, depth: usize) -> Result<Vec<Set>, String> {
        let mut found = self.both(rest, depth)?;
        while let Some(tail) = rest.trim_start().strip_prefix('|') {
            *rest = tail;
            found.extend(self.both(rest, depth)?);
            self.check(found.len())?;
        }
        Ok(found)
    }

    fn both(&mut self, rest: &mut &str, depth: usize) -> Result<Vec<Set>, String> {
        let mut found = self.one(rest, depth)?;
        while let Some(tail) = rest.trim_start().strip_prefix('&') {
            *rest = tail;
            let more = self.one(rest, depth)?;
            self.check(found.len().saturating_mul(more.len()))?;
            let pairs = found.iter().flat_map(|left| {
                let unions = more
                    .iter()
                    .map(|right| left.union(right).copied().collect());
                unions.collect::<Vec<Set>>()
            });
            found = pairs.collect();
        }
        Ok(found)
    }

    fn one(&mut self, rest: &mut &str, depth: usize) -> Result<Vec<Set>, String> {
        self.steps += 1;
        if self.steps > STEPS || depth > DEEPEST {
            return Err("it is too long or too deep, or a set is in itself".to_owned());
        }
        *rest = rest.trim_start();
        if let Some(tail) = rest.strip_prefix('(') {
            *rest = tail;
            let found = self.either(rest, depth + 1)?;
            *rest = rest.trim_start();
            *rest = rest.strip_prefix(')').ok_or("a `)` is missing")?;
            return Ok(found);
        }
        let reference = rest.strip_prefix('+');
        *rest = reference.unwrap_or(rest);
        let legal = |c: char| c.is_alphanumeric() || "._-:/".contains(c);
        let end = rest.find(|c| !legal(c)).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        if word.is_empty() {
            return Err(match start(rest) {
                "" => "it ends too early".to_owned(),
                odd => format!("`{odd}` is not understood"),
            });
        }
        *rest = tail;
        if reference.is_some() {
            let mut sets = self.sets.iter();
            let Some((_, text)) = sets.find(|(name, _)| name.as_str() == word) else {
                return Err(format!("there is no set `{word}`"));
            };
            return self.expression(text.as_str(), depth + 1);
        }
        let index = (self.words)(word).ok_or_else(|| format!("`{word}` is no model"))?;
        Ok(vec![Set::from([index])])
    }

    fn check(&self, count: usize) -> Result<(), String> {
        match count > SETS {
            true => Err("it stands for too many sets".to_owned()),
            false => Ok(()),
        }
    }
}

/// The first character, for a message.
fn start(text: &str) -> &str {
    let end = text.chars().next().map_or(0, char::len_utf8);
    &text[..end]
}
