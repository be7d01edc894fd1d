//! Requests of the right type with any values: those that make sense, and those at the edges.

use std::collections::{BTreeMap, VecDeque};

use fastrand::Rng;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value};

/// How many values of a sort are remembered from answers.
const LEARNED: usize = 8;

/// Texts that are easily taken for something else, or for something shorter.
fn texts() -> Vec<String> {
    let short = [
        "", "\0", ".", "/", "..", "../..", "/..", "/../..", "a/", " ", "a b", "*", "%s", "é", "\u{feff}", "\u{202e}",
        "1", "-",
    ];
    let long = [
        "x".repeat(127),
        "x".repeat(128),
        "x".repeat(129),
        "0".repeat(65),
        "/x".repeat(2047),
        "/x".repeat(2048),
        format!("/{}", "\u{1}".repeat(255)).repeat(15),
        format!("/{}", "é".repeat(127)).repeat(16),
        format!("/{}", "{".repeat(255)).repeat(16),
        "/sys/fs/cgroup/cpu".to_owned(),
    ];
    short.map(str::to_owned).into_iter().chain(long).collect()
}

/// Makes messages.
pub struct Values {
    /// By the name of a field: what makes sense in it.
    known: BTreeMap<String, Vec<Value>>,
    /// And what an answer said.
    learned: BTreeMap<String, VecDeque<Value>>,
    texts: Vec<String>,
}

impl Default for Values {
    fn default() -> Self {
        Self { known: BTreeMap::new(), learned: BTreeMap::new(), texts: texts() }
    }
}

impl Values {
    /// These make sense in fields of these names.
    pub fn know<T>(&mut self, fields: &[&str], value: fn(T) -> Value, all: impl IntoIterator<Item = T>) {
        let all: Vec<_> = all.into_iter().map(value).collect();
        for field in fields {
            self.known.insert((*field).to_owned(), all.clone());
        }
    }

    /// What is in an answer makes sense in requests.
    pub fn learn(&mut self, answer: &DynamicMessage) {
        for (field, value) in answer.fields() {
            self.learn_value(field.name(), value);
        }
    }

    fn learn_value(&mut self, name: &str, value: &Value) {
        let field = match (name, value) {
            (_, Value::Message(message)) => return self.learn(message),
            (_, Value::List(values)) => return values.iter().for_each(|value| self.learn_value(name, value)),
            ("next_page_token", _) => "page_token",
            ("version", Value::U64(_)) => "expected_version",
            ("map_id", _) => "expected_map_id",
            ("owner_id" | "start_time_ticks", _) => name,
            _ => return,
        };
        // What many have a column of.
        for field in [field.to_owned(), format!("{field}s")] {
            let learned = self.learned.entry(field).or_default();
            learned.push_back(value.clone());
            if learned.len() > LEARNED {
                learned.pop_front();
            }
        }
    }

    /// A message in which every field is odd with the probability `odd`.
    pub fn message(&self, rng: &mut Rng, descriptor: &MessageDescriptor, odd: f64) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        for oneof in descriptor.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            if let Some(field) = rng.choice(oneof.fields()).filter(|_| rng.u8(..) > 16) {
                message.set_field(&field, self.value(rng, &field, odd));
            }
        }
        for field in descriptor.fields() {
            let chosen = field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic());
            // What is `optional` means something by being there.
            let often = if field.supports_presence() { 64 } else { 240 };
            if !chosen && rng.u8(..) < often {
                message.set_field(&field, self.value(rng, &field, odd));
            }
        }
        if rng.f64() >= odd {
            make_sense_of_columns(rng, &mut message);
        }
        message
    }

    fn value(&self, rng: &mut Rng, field: &FieldDescriptor, odd: f64) -> Value {
        assert!(!field.is_map(), "make values of {field:?}: the API had no such field yet");
        match field.is_list() {
            false => self.single(rng, field, odd),
            true => Value::List((0..rng.usize(..4)).map(|_| self.single(rng, field, odd)).collect()),
        }
    }

    fn single(&self, rng: &mut Rng, field: &FieldDescriptor, odd: f64) -> Value {
        let odd_one = rng.f64() < odd;
        if let Kind::Message(descriptor) = field.kind() {
            let known = self.known.get(field.name()).filter(|_| !odd_one && rng.u8(..) < 192);
            let known = known.and_then(|known| rng.choice(known)).cloned();
            return known.unwrap_or_else(|| Value::Message(self.message(rng, &descriptor, odd)));
        }
        let known = self.known.get(field.name()).and_then(|known| rng.choice(known));
        let learned = self.learned.get(field.name()).and_then(|learned| rng.choice(learned));
        match if rng.u8(..) < 192 { known.or(learned) } else { learned.or(known) } {
            Some(value) if !odd_one => value.clone(),
            _ => self.any(rng, &field.kind(), odd_one),
        }
    }

    fn any(&self, rng: &mut Rng, kind: &Kind, odd: bool) -> Value {
        match kind {
            Kind::Bool => Value::Bool(rng.bool()),
            Kind::Int32 => Value::I32(rng.choice([0, 1, -1, 2, i32::MIN, i32::MAX]).unwrap()),
            Kind::Uint32 => Value::U32(rng.choice([0, 1, 7, 65_407, 65_408, i32::MAX as u32, u32::MAX]).unwrap()),
            Kind::Uint64 | Kind::Fixed64 => {
                Value::U64(rng.choice([0, 1, 2, i64::MAX as u64, u64::MAX - 1, u64::MAX]).unwrap())
            }
            Kind::Bytes => Value::Bytes(vec![rng.u8(..); rng.choice([0, 1, 7, 9, 65_408]).unwrap()].into()),
            Kind::String => {
                // Also what makes sense elsewhere.
                let elsewhere = self.known.values().flatten().filter_map(Value::as_str);
                let all: Vec<_> = self.texts.iter().map(String::as_str).chain(elsewhere).collect();
                Value::String((*rng.choice(&all).unwrap()).to_owned())
            }
            Kind::Enum(choice) if odd => {
                let last = choice.values().map(|value| value.number()).max().unwrap();
                Value::EnumNumber(rng.choice([0, -1, last + 1, i32::MIN, i32::MAX]).unwrap())
            }
            Kind::Enum(choice) => Value::EnumNumber(rng.choice(choice.values()).unwrap().number()),
            other => panic!("make values of {other:?}: the API had none yet"),
        }
    }
}

/// Of a batch: one form alone, and columns that are as long as it.
fn make_sense_of_columns(rng: &mut Rng, message: &mut DynamicMessage) {
    let length = |message: &DynamicMessage, field: &str| {
        let list = message.get_field_by_name(field)?;
        Some(list.as_list()?.len())
    };
    let (Some(ids), Some(owners)) = (length(message, "owner_ids"), length(message, "owners")) else { return };
    let (count, other) = if ids > 0 && (owners == 0 || rng.bool()) { (ids, "owners") } else { (owners, "owner_ids") };
    message.clear_field_by_name(other);
    if message.descriptor().get_field_by_name("values").is_some() {
        message.set_field_by_name("values", Value::Bytes(vec![7; 8 * count].into()));
    }
    if length(message, "expected_versions").is_some_and(|versions| versions != count) {
        message.clear_field_by_name("expected_versions");
    }
}
