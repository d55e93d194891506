//! Objects whose kind one of their keys names, such as `{"source": "imds", …}`.
//!
//! serde's own `tag` copies the object before it reads it, and an error in the copy has lost its key. Here the tag comes first
//! (the reader sees to it), and the other keys are read in place.

use super::json::Json;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::Value;

/// Implements serde's traits for an enum of struct variants that derives them with `remote = "Self"`: the name of the
/// variant becomes the value of the key `$tag`.
macro_rules! tagged {
    ($type:ident, $tag:literal) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Object;
                impl<'de> serde::de::Visitor<'de> for Object {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("an object with a key `", $tag, "`"))
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$type, A::Error> {
                        match $crate::config::tagged::unordered(&mut map, $tag)? {
                            // The derived function, which is not the trait's.
                            None => <$type>::deserialize($crate::config::tagged::Tagged(map)),
                            Some(object) => $crate::config::read::read(&object).map_err(serde::de::Error::custom),
                        }
                    }
                }
                deserializer.deserialize_map(Object)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let named =
                    <$type>::serialize(self, serde_json::value::Serializer).map_err(serde::ser::Error::custom)?;
                serializer.collect_map($crate::config::tagged::flatten($tag, named))
            }
        }
    };
}
pub(super) use tagged;

/// `{"imds": {…}}` → `source`: `imds`, then the entries.
pub(super) fn flatten(tag: &str, named: Value) -> Vec<(String, Value)> {
    let Value::Object(named) = named else { return Vec::new() };
    let Some((name, Value::Object(fields))) = named.into_iter().next() else { return Vec::new() };
    std::iter::once((tag.to_owned(), Value::String(name))).chain(fields).collect()
}

/// Reads the first key. `None` if it is the tag; else the whole object, which another deserializer gave in another order.
pub(super) fn unordered<'de, A: MapAccess<'de>>(map: &mut A, tag: &'static str) -> Result<Option<Json>, A::Error> {
    let Some(first) = map.next_key::<String>()? else { return Err(A::Error::missing_field(tag)) };
    if first == tag {
        return Ok(None);
    }
    let mut entries = vec![(first, map.next_value()?)];
    while let Some(entry) = map.next_entry()? {
        entries.push(entry);
    }
    let object = Json::Object(entries);
    if object.get(tag).is_some() { Ok(Some(object)) } else { Err(A::Error::missing_field(tag)) }
}

/// An object of which the key of the tag has been read.
pub(super) struct Tagged<A>(pub(super) A);

/// Reads the tag's value as one of the known names.
struct Name(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'static str, D::Error> {
        let name: String = serde::Deserialize::deserialize(deserializer)?;
        let known = self.0.iter().copied().find(|known| *known == name);
        known.ok_or_else(|| D::Error::unknown_variant(&name, self.0))
    }
}

impl<'de, A: MapAccess<'de>> Deserializer<'de> for Tagged<A> {
    type Error = A::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, A::Error> {
        Err(A::Error::custom("a tagged object is an enum"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let Self(mut map) = self;
        let name = map.next_value_seed(Name(known))?;
        visitor.visit_enum(Variant { name, fields: Fields(map) })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Variant<A> {
    name: &'static str,
    fields: Fields<A>,
}

/// The entries after the tag.
struct Fields<A>(A);

impl<'de, A: MapAccess<'de>> EnumAccess<'de> for Variant<A> {
    type Error = A::Error;
    type Variant = Fields<A>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Fields<A>), A::Error> {
        Ok((seed.deserialize(self.name.into_deserializer())?, self.fields))
    }
}

impl<'de, A: MapAccess<'de>> VariantAccess<'de> for Fields<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        Err(A::Error::custom("a tagged object has no unit variants"))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, A::Error> {
        Err(A::Error::custom("a tagged object has no newtype variants"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, A::Error> {
        Err(A::Error::custom("a tagged object has no tuple variants"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, A::Error> {
        visitor.visit_map(self.0)
    }
}
