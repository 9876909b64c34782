//! What the protos say of messages and calls: fields, kinds, comments.
//!
//! **Invariant**: a message is described with all that is in it, down to values; a field whose kind has no form over HTTP
//! is an error here, at the start, and not later.

use std::collections::HashMap;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, ServiceDescriptorProto,
};
use thiserror::Error;

const TIMESTAMP: &str = ".google.protobuf.Timestamp";
const DURATION: &str = ".google.protobuf.Duration";

/// Numbers of fields in `descriptor.proto`, of which the paths of comments are made.
const MESSAGES_OF_FILE: i32 = 4;
const SERVICES_OF_FILE: i32 = 6;
const FIELDS_OF_MESSAGE: i32 = 2;
const METHODS_OF_SERVICE: i32 = 2;

/// Why the descriptors built into this program are of no use.
#[derive(Debug, Error)]
pub enum SchemaError {
    /// They do not decode.
    #[error("descriptors: {0}")]
    Descriptors(#[from] prost::DecodeError),
    /// A call is not among them.
    #[error("descriptors: there is no call {0}")]
    NoSuchCall(&'static str),
    /// A message or an enum is not among them.
    #[error("descriptors: there is no message or enum {0}")]
    NoSuchType(String),
    /// A field has a kind that is not written over HTTP.
    #[error("descriptors: the kind of {0} has no form over HTTP")]
    NoForm(String),
}

/// The messages of one call.
#[derive(Debug)]
pub(super) struct CallSchema {
    pub(super) request: MessageSchema,
    pub(super) response: MessageSchema,
    /// What the call does, as the proto says it.
    pub(super) comment: String,
}

/// A message, its own name without that of the package.
#[derive(Debug)]
pub(super) struct MessageSchema {
    pub(super) name: String,
    /// What the proto says above it; empty if nothing.
    pub(super) comment: String,
    /// In the order of the proto.
    pub(super) fields: Vec<FieldSchema>,
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct FieldSchema {
    pub(super) name: String,
    pub(super) comment: String,
    /// Of each element where it is a list.
    pub(super) kind: Kind,
    pub(super) is_list: bool,
    /// Whether absent differs from a value.
    pub(super) may_be_absent: bool,
}

/// What a field holds.
#[derive(Debug)]
pub(super) enum Kind {
    Bool,
    Text,
    Int32,
    Int64,
    /// Of either size.
    Unsigned,
    Time,
    Length,
    Enum(EnumSchema),
    Message(Box<MessageSchema>),
}

/// An enum, its own name without that of the package.
#[derive(Debug)]
pub(super) struct EnumSchema {
    pub(super) name: String,
    /// The names of its values without what they all begin with, but for "unspecified".
    pub(super) values: Vec<String>,
}

impl MessageSchema {
    /// The field of this name.
    pub(super) fn field(&self, name: &str) -> Option<&FieldSchema> {
        self.fields.iter().find(|field| field.name == name)
    }
}

impl Kind {
    /// The message that it is, unless that is one value.
    pub(super) fn message(&self) -> Option<&MessageSchema> {
        if let Self::Message(of) = self { Some(of) } else { None }
    }
}

/// The messages and enums of all files by their full names, and their services.
pub(super) struct Descriptors<'a> {
    /// Names of fields that are passed over.
    without: &'a [&'a str],
    files: Vec<Comments<'a>>,
    /// With the file that each is in and its place there.
    messages: HashMap<String, (usize, i32, &'a DescriptorProto)>,
    enums: HashMap<String, &'a EnumDescriptorProto>,
    /// By their own names, with file and place.
    services: HashMap<&'a str, (usize, i32, &'a ServiceDescriptorProto)>,
}

/// What a file says, by the paths of what it says it of.
type Comments<'a> = HashMap<&'a [i32], String>;

/// The places of elements, as paths have them.
fn numbered<T>(elements: &[T]) -> impl Iterator<Item = (i32, &T)> {
    (0..).zip(elements)
}

impl<'a> Descriptors<'a> {
    /// Of `files`, passing over the fields that `without` names.
    pub(super) fn new(files: &'a FileDescriptorSet, without: &'a [&'a str]) -> Self {
        let mut all = Self {
            without,
            files: files.file.iter().map(comments).collect(),
            messages: HashMap::new(),
            enums: HashMap::new(),
            services: HashMap::new(),
        };
        for (at, file) in files.file.iter().enumerate() {
            let package = file.package();
            let messages = numbered(&file.message_type);
            all.messages.extend(messages.map(|(place, of)| (format!(".{package}.{}", of.name()), (at, place, of))));
            all.enums.extend(file.enum_type.iter().map(|of| (format!(".{package}.{}", of.name()), of)));
            all.services.extend(numbered(&file.service).map(|(place, of)| (of.name(), (at, place, of))));
        }
        all
    }

    /// The call `method` of `service`.
    pub(super) fn call(&self, service: &'static str, method: &'static str) -> Result<CallSchema, SchemaError> {
        let found = self.services.get(service).ok_or(SchemaError::NoSuchCall(service))?;
        let (file, at, service) = *found;
        let found = numbered(&service.method).find(|(_, of)| of.name() == method);
        let (place, found) = found.ok_or(SchemaError::NoSuchCall(method))?;
        let comment = self.comment(file, &[SERVICES_OF_FILE, at, METHODS_OF_SERVICE, place]);
        let (request, response) = (self.message(found.input_type())?, self.message(found.output_type())?);
        Ok(CallSchema { request, response, comment })
    }

    /// The message of this full name, which begins with a dot.
    fn message(&self, name: &str) -> Result<MessageSchema, SchemaError> {
        let found = self.messages.get(name).ok_or_else(|| SchemaError::NoSuchType(name.to_owned()))?;
        let (file, place, message) = *found;
        let told = numbered(&message.field).filter(|(_, field)| !self.without.contains(&field.name()));
        let fields = told.map(|(at, field)| {
            let comment = self.comment(file, &[MESSAGES_OF_FILE, place, FIELDS_OF_MESSAGE, at]);
            self.field(field, comment)
        });
        Ok(MessageSchema {
            name: message.name().to_owned(),
            comment: self.comment(file, &[MESSAGES_OF_FILE, place]),
            fields: fields.collect::<Result<_, _>>()?,
        })
    }

    /// What the proto says above something; empty if nothing.
    fn comment(&self, file: usize, path: &[i32]) -> String {
        self.files.get(file).and_then(|comments| comments.get(path)).cloned().unwrap_or_default()
    }

    fn field(&self, field: &FieldDescriptorProto, comment: String) -> Result<FieldSchema, SchemaError> {
        let is_list = field.label() == Label::Repeated;
        let is_message = field.r#type() == Type::Message;
        Ok(FieldSchema {
            name: field.name().to_owned(),
            comment,
            kind: self.kind(field)?,
            is_list,
            may_be_absent: !is_list && (is_message || field.oneof_index.is_some()),
        })
    }

    fn kind(&self, field: &FieldDescriptorProto) -> Result<Kind, SchemaError> {
        Ok(match field.r#type() {
            Type::Bool => Kind::Bool,
            Type::String => Kind::Text,
            Type::Int32 => Kind::Int32,
            Type::Int64 => Kind::Int64,
            Type::Uint32 | Type::Uint64 => Kind::Unsigned,
            Type::Enum => {
                let of = self.enums.get(field.type_name());
                Kind::Enum(enum_schema(of.ok_or_else(|| SchemaError::NoSuchType(field.type_name().to_owned()))?))
            }
            Type::Message => match field.type_name() {
                TIMESTAMP => Kind::Time,
                DURATION => Kind::Length,
                name => Kind::Message(Box::new(self.message(name)?)),
            },
            Type::Double
            | Type::Float
            | Type::Fixed32
            | Type::Fixed64
            | Type::Sfixed32
            | Type::Sfixed64
            | Type::Sint32
            | Type::Sint64
            | Type::Group
            | Type::Bytes => return Err(SchemaError::NoForm(field.name().to_owned())),
        })
    }
}

fn comments(file: &FileDescriptorProto) -> Comments<'_> {
    let said = file.source_code_info.iter().flat_map(|info| &info.location).filter_map(|place| {
        let lines: Vec<&str> = place.leading_comments.as_deref()?.lines().map(str::trim).collect();
        Some((place.path.as_slice(), lines.join(" ").trim().to_owned()))
    });
    said.collect()
}

fn enum_schema(of: &EnumDescriptorProto) -> EnumSchema {
    let prefix = of.value.iter().find_map(|value| value.name().strip_suffix("UNSPECIFIED")).unwrap_or_default();
    let specified = of.value.iter().filter(|value| value.number() != 0).map(EnumValueDescriptorProto::name);
    let values = specified.map(|name| name.strip_prefix(prefix).unwrap_or(name).to_owned()).collect();
    EnumSchema { name: of.name().to_owned(), values }
}

/// The descriptors of this program.
pub(super) fn decode(bytes: &[u8]) -> Result<FileDescriptorSet, SchemaError> {
    Ok(FileDescriptorSet::decode(bytes)?)
}
