//! Values made of named parts: `loss=5%,delay=1ms` on the command line, a string or a table in a configuration file.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use crate::error::{BadValue, nearest};

/// A value whose parts are set one by one, by name.
pub(super) trait Keyed: Sized {
    /// What it is, as error messages call it, with an example.
    const EXPECTING: &'static str;

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
            while let Some((key, Scalar(part))) = map.next_entry::<String, Scalar>()? {
                value.set(&key, &part).map_err(A::Error::custom)?;
            }
            value.finish().map_err(A::Error::custom)
        }
    }

    deserializer.deserialize_any(Either(PhantomData))
}

/// A string, an integer or a truth value, as text.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a whole number, true or false")
            }

            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }

            fn visit_bool<E>(self, truth: bool) -> Result<Scalar, E> {
                Ok(Scalar(truth.to_string()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
        }

        deserializer.deserialize_any(Text)
    }
}
