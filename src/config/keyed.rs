//! Values made of named parts: `loss=5%,delay=1ms` on the command line, a string or a table in a configuration file.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::error::{BadValue, nearest};

/// A value whose parts are set one by one, by name.
pub(super) trait Keyed: Sized {
    /// What it is, as error messages call it, with an example.
    const EXPECTING: &'static str;

    /// Parts that a file may give a list, as if each of its elements was set.
    const LISTS: &'static [&'static str] = &[];

    /// The value with nothing set.
    fn empty() -> Self;

    /// Reads the whole from its text form.
    fn from_text(text: &str) -> Result<Self, BadValue>;

    /// Sets the part `key`.
    fn set(&mut self, key: &str, value: &str) -> Result<(), BadValue>;

    /// Says whether what was set is enough.
    fn finish(self) -> Result<Self, BadValue> {
        Ok(self)
    }
}

/// The error for a part that does not exist.
pub(super) fn unknown_part(key: &str, known: &[&str]) -> BadValue {
    let mend = match nearest(key, known.iter().copied()) {
        Some(name) => format!("did you mean \"{name}\"?"),
        None => format!("known are {}", known.join(", ")),
    };
    BadValue { problem: format!("\"{key}\" is unknown here"), mend }
}

/// `true` or `false`.
pub(super) fn truth(key: &str, value: &str) -> Result<bool, BadValue> {
    value.parse().map_err(|_| BadValue::not(value, "true or false", format!("write {key}=true")))
}

/// Deserializes either form.
pub(super) fn deserialize<'de, T: Keyed, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Either<T>(PhantomData<T>);

    impl<'de, T: Keyed> Visitor<'de> for Either<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(T::EXPECTING)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            T::from_text(text).map_err(E::custom)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
            let mut value = T::empty();
            while let Some(key) = map.next_key::<String>()? {
                // Through a seed, so that the error gets the place of this part and not of the whole.
                map.next_value_seed(Part { value: &mut value, key: &key })?;
            }
            value.finish().map_err(A::Error::custom)
        }
    }

    deserializer.deserialize_any(Either(PhantomData))
}

/// Sets one part of a value from what a file says of it.
struct Part<'a, T> {
    value: &'a mut T,
    key: &'a str,
}

impl<'de, T: Keyed> DeserializeSeed<'de> for Part<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if T::LISTS.contains(&self.key) {
            return deserializer.deserialize_any(List(self));
        }
        deserializer.deserialize_any(Scalar(|text: &str| self.value.set(self.key, text)))
    }
}

/// A part of which there may be many.
struct List<'a, T>(Part<'a, T>);

impl<'de, T: Keyed> Visitor<'de> for List<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, or a list of them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.0.value.set(self.0.key, text).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Part { value, key } = self.0;
        let mut empty = true;
        while list.next_element_seed(Element { value: &mut *value, key })?.is_some() {
            empty = false;
        }
        // Nobody, or everybody? Whoever wrote it knows.
        if empty {
            Err(A::Error::custom(format!("\"{key}\" is an empty list: leave it out to allow all")))
        } else {
            Ok(())
        }
    }
}

/// One of them: an error gets its place.
struct Element<'a, T> {
    value: &'a mut T,
    key: &'a str,
}

impl<'de, T: Keyed> DeserializeSeed<'de> for Element<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(Scalar(|text: &str| self.value.set(self.key, text)))
    }
}

/// Deserializes a string, an integer or a truth value with the parser for its text.
pub(crate) fn scalar<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Result<T, BadValue>,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(Scalar(parse))
}

struct Scalar<F>(F);

impl<T, F: FnOnce(&str) -> Result<T, BadValue>> Visitor<'_> for Scalar<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a whole number, true or false")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<T, E> {
        self.visit_str(&truth.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}
