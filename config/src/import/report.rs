//! After the translators: what became of each field.

use std::collections::HashMap;

use super::coverage::{Field, Table};
use super::fields::camel;
use super::{Audit, Document, Finding, Level};
use crate::model::Position;
use crate::node::{Node, Value};

/// Walks documents and tells of every field what became of it.
pub(super) struct Report<'a> {
    audit: &'a Audit,
    verbose: bool,
    tables: HashMap<(&'a str, &'a str), Table>,
    findings: Vec<Finding>,
}

/// Where the walk is.
struct Place<'d> {
    document: &'d Document<'d>,
    path: String,
    field: String,
    security: bool,
}

impl<'a> Report<'a> {
    /// * `verbose`: what is `ok` is told too
    pub(super) fn new(audit: &'a Audit, verbose: bool) -> Self {
        Self {
            audit,
            verbose,
            tables: HashMap::new(),
            findings: Vec::new(),
        }
    }

    /// Tells of a whole document that it has no effect, or none that matters.
    pub(super) fn whole(
        &mut self,
        document: &Document<'_>,
        level: Level,
        security: bool,
        note: &str,
    ) {
        if level == Level::Ok && !self.verbose {
            return;
        }
        self.findings.push(Finding {
            level,
            security,
            document: document.title(),
            path: String::new(),
            field: String::new(),
            position: document.at().clone(),
            note: note.to_owned(),
        });
    }

    /// Tells of every field of a document that a translator had.
    pub(super) fn fields(&mut self, document: &Document<'a>) {
        if let Some(said) = self.audit.said(document.node) {
            return self.whole(document, said.level, said.security, &said.note);
        }
        let key = (document.group, document.kind);
        let table = self
            .tables
            .remove(&key)
            .unwrap_or_else(|| Table::new(document.table));
        let place = Place {
            document,
            path: String::new(),
            field: String::new(),
            security: false,
        };
        self.entries(&table, document.node, &place);
        self.tables.insert(key, table);
    }

    pub(super) fn finish(self) -> Vec<Finding> {
        self.findings
    }

    fn entries(&mut self, table: &Table, node: &Node, place: &Place<'_>) {
        match &node.value {
            Value::Map(entries) => {
                for entry in entries.iter().filter(|entry| !entry.value.is_null()) {
                    let proto = place.document.table.is_some_and(|kind| kind.proto);
                    let mut field = table.path(&place.field, &entry.key);
                    if proto && !table.knows(&field) {
                        field = table.path(&place.field, &camel(&entry.key));
                    }
                    let dot = if place.path.is_empty() { "" } else { "." };
                    let inner = Place {
                        document: place.document,
                        path: format!("{}{dot}{}", place.path, entry.key),
                        security: place.security,
                        field,
                    };
                    self.value(table, &entry.value, &entry.position, inner);
                }
            }
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let inner = Place {
                        document: place.document,
                        path: format!("{}[{index}]", place.path),
                        field: format!("{}[]", place.field),
                        security: place.security,
                    };
                    self.item(table, item, inner);
                }
            }
            Value::Scalar(_) => {}
        }
    }

    /// An item has been read when its list has.
    fn item(&mut self, table: &Table, node: &Node, place: Place<'_>) {
        if !self.audit.was_read(node) && node.scalar().is_none() {
            let note = "not used here".to_owned();
            return self.tell(Level::Lost, place.security, &place, &node.position, note);
        }
        if let Some(said) = self.audit.said(node) {
            let security = place.security || said.security;
            return self.tell(said.level, security, &place, &node.position, said.note);
        }
        self.entries(table, node, &place);
    }

    fn value(&mut self, table: &Table, node: &Node, key: &Position, mut place: Place<'_>) {
        let field = table.find(&place.field).copied();
        place.security |= field.is_some_and(|field| field.security);
        let note = field.map_or("", |field| field.note).to_owned();
        if let Some(said) = self.audit.said(node) {
            let security = place.security || said.security;
            let note = if said.note.is_empty() {
                note
            } else {
                said.note
            };
            return self.tell(said.level, security, &place, &node.position, note);
        }
        match field {
            Some(Field { harmless: true, .. }) => {
                return self.tell(Level::Ok, false, &place, key, note);
            }
            Some(Field {
                level: Level::Lost, ..
            }) => return self.tell(Level::Lost, place.security, &place, key, note),
            _ => {}
        }
        if !self.audit.was_read(node) {
            let note = match table.knows(&place.field) {
                true => "not used here",
                false => "not translated",
            };
            return self.tell(Level::Lost, place.security, &place, key, note.to_owned());
        }
        match field {
            Some(field) => self.tell(field.level, false, &place, &node.position, note),
            None if node.scalar().is_some() || !table.knows(&place.field) => {
                let note = "not translated".to_owned();
                return self.tell(Level::Lost, place.security, &place, key, note);
            }
            None => {}
        }
        match table.leads(&place.field) {
            true => self.entries(table, node, &place),
            false => self.exceptions(node, &place),
        }
    }

    /// Tells of what translators said in a field that the table lists as a whole.
    fn exceptions(&mut self, node: &Node, place: &Place<'_>) {
        let inner: Vec<(String, &Node)> = match &node.value {
            Value::Map(entries) => {
                let entries = entries.iter();
                let named = entries.map(|entry| (format!(".{}", entry.key), &entry.value));
                named.collect()
            }
            Value::List(items) => {
                let items = items.iter().enumerate();
                let numbered = items.map(|(index, item)| (format!("[{index}]"), item));
                numbered.collect()
            }
            Value::Scalar(_) => return,
        };
        for (step, node) in inner {
            let inner = Place {
                document: place.document,
                path: format!("{}{step}", place.path),
                field: place.field.clone(),
                security: place.security,
            };
            match self.audit.said(node) {
                Some(said) => {
                    let security = inner.security || said.security;
                    self.tell(said.level, security, &inner, &node.position, said.note);
                }
                None => self.exceptions(node, &inner),
            }
        }
    }

    fn tell(
        &mut self,
        level: Level,
        security: bool,
        place: &Place<'_>,
        at: &Position,
        note: String,
    ) {
        if level == Level::Ok && !self.verbose {
            return;
        }
        self.findings.push(Finding {
            level,
            security: security && level == Level::Lost,
            document: place.document.title(),
            path: place.path.clone(),
            field: place.field.clone(),
            position: at.clone(),
            note,
        });
    }
}
