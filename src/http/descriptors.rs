//! Schemas of calls and messages from the descriptors of the protos: fields, types and comments.
//!
//! **Invariant**: the schema of a message includes the schemas of all messages and enums inside it. A field of a type
//! that HTTP does not support is an error when the schema is built, at the start of the server.

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

/// Field numbers in `descriptor.proto`. The path of a comment is a list of such numbers and of indices.
const MESSAGES_OF_FILE: i32 = 4;
const SERVICES_OF_FILE: i32 = 6;
const FIELDS_OF_MESSAGE: i32 = 2;
const METHODS_OF_SERVICE: i32 = 2;

/// The reason why the descriptors built into this program are invalid.
#[derive(Debug, Error)]
pub enum SchemaError {
    /// The descriptors cannot be decoded.
    #[error("invalid descriptors: {0}")]
    Descriptors(#[from] prost::DecodeError),
    /// The descriptors have no such call.
    #[error("invalid descriptors: there is no call {0}")]
    NoSuchCall(&'static str),
    /// The descriptors have no such message or enum.
    #[error("invalid descriptors: there is no message or enum {0}")]
    NoSuchType(String),
    /// A field has a type that HTTP does not support.
    #[error("invalid descriptors: the type of field {0} is not supported over HTTP")]
    UnsupportedType(String),
}

/// The message schemas of one call.
#[derive(Debug)]
pub(super) struct CallSchema {
    pub(super) request: MessageSchema,
    pub(super) response: MessageSchema,
    /// The comment of the method in the proto.
    pub(super) comment: String,
}

/// The schema of a message.
#[derive(Debug)]
pub(super) struct MessageSchema {
    /// The name without the package.
    pub(super) name: String,
    /// The comment in the proto; empty if there is none.
    pub(super) comment: String,
    /// The fields, in the order of the proto.
    pub(super) fields: Vec<FieldSchema>,
}

/// The schema of a field.
#[derive(Debug)]
pub(super) struct FieldSchema {
    pub(super) name: String,
    pub(super) comment: String,
    /// The type of the field, or of its elements if the field is a list.
    pub(super) kind: Kind,
    pub(super) is_list: bool,
    /// Whether an absent value differs from the default value.
    pub(super) may_be_absent: bool,
}

/// The type of a field.
#[derive(Debug)]
pub(super) enum Kind {
    Bool,
    Text,
    Int32,
    Int64,
    /// An unsigned integer of 32 or 64 bits.
    Unsigned,
    Time,
    Duration,
    Enum(EnumSchema),
    Message(Box<MessageSchema>),
}

/// The schema of an enum.
#[derive(Debug)]
pub(super) struct EnumSchema {
    /// The name without the package.
    pub(super) name: String,
    /// The names of the values without their common prefix, and without the unspecified value.
    pub(super) values: Vec<String>,
}

impl MessageSchema {
    /// Returns the field of this name.
    pub(super) fn field(&self, name: &str) -> Option<&FieldSchema> {
        self.fields.iter().find(|field| field.name == name)
    }
}

impl Kind {
    /// Returns the schema if the type is a message. Times and durations are values, not messages.
    pub(super) fn message(&self) -> Option<&MessageSchema> {
        if let Self::Message(schema) = self { Some(schema) } else { None }
    }
}

/// An index of the messages, enums and services of all proto files.
pub(super) struct Descriptors<'a> {
    /// Names of fields that schemas omit.
    omitted: &'a [&'a str],
    files: Vec<Comments<'a>>,
    /// Messages by full name, each with the index of its file and its index in the file.
    messages: HashMap<String, (usize, i32, &'a DescriptorProto)>,
    /// Enums by full name.
    enums: HashMap<String, &'a EnumDescriptorProto>,
    /// Services by name, each with the index of its file and its index in the file.
    services: HashMap<&'a str, (usize, i32, &'a ServiceDescriptorProto)>,
}

/// The comments of a file, by the path of the commented element.
type Comments<'a> = HashMap<&'a [i32], String>;

/// Pairs each element with its index, in the integer type that the path of a comment uses.
fn numbered<T>(elements: &[T]) -> impl Iterator<Item = (i32, &T)> {
    (0..).zip(elements)
}

impl<'a> Descriptors<'a> {
    /// Indexes `files`. Schemas omit the fields that `omitted` names.
    pub(super) fn new(files: &'a FileDescriptorSet, omitted: &'a [&'a str]) -> Self {
        let mut all = Self {
            omitted,
            files: files.file.iter().map(comments).collect(),
            messages: HashMap::new(),
            enums: HashMap::new(),
            services: HashMap::new(),
        };
        for (at, file) in files.file.iter().enumerate() {
            let package = file.package();
            let messages = numbered(&file.message_type);
            all.messages.extend(messages.map(|(index, message)| {
                let name = format!(".{package}.{}", message.name());
                (name, (at, index, message))
            }));
            all.enums.extend(file.enum_type.iter().map(|item| (format!(".{package}.{}", item.name()), item)));
            all.services.extend(numbered(&file.service).map(|(index, item)| (item.name(), (at, index, item))));
        }
        all
    }

    /// Returns the schemas of the call `method` of `service`.
    pub(super) fn call(&self, service: &'static str, method: &'static str) -> Result<CallSchema, SchemaError> {
        let found = self.services.get(service).ok_or(SchemaError::NoSuchCall(service))?;
        let (file, at, service) = *found;
        let found = numbered(&service.method).find(|(_, item)| item.name() == method);
        let (index, found) = found.ok_or(SchemaError::NoSuchCall(method))?;
        let comment = self.comment(file, &[SERVICES_OF_FILE, at, METHODS_OF_SERVICE, index]);
        let (request, response) = (self.message(found.input_type())?, self.message(found.output_type())?);
        Ok(CallSchema { request, response, comment })
    }

    /// Returns the schema of the message with this full name, which begins with a dot.
    fn message(&self, name: &str) -> Result<MessageSchema, SchemaError> {
        let found = self.messages.get(name).ok_or_else(|| SchemaError::NoSuchType(name.to_owned()))?;
        let (file, index, message) = *found;
        let included = numbered(&message.field).filter(|(_, field)| !self.omitted.contains(&field.name()));
        let fields = included.map(|(at, field)| {
            let comment = self.comment(file, &[MESSAGES_OF_FILE, index, FIELDS_OF_MESSAGE, at]);
            self.field(field, comment)
        });
        Ok(MessageSchema {
            name: message.name().to_owned(),
            comment: self.comment(file, &[MESSAGES_OF_FILE, index]),
            fields: fields.collect::<Result<_, _>>()?,
        })
    }

    /// Returns the comment of the element with this path; empty if there is none.
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
                let found = self.enums.get(field.type_name());
                Kind::Enum(enum_schema(found.ok_or_else(|| SchemaError::NoSuchType(field.type_name().to_owned()))?))
            }
            Type::Message => match field.type_name() {
                TIMESTAMP => Kind::Time,
                DURATION => Kind::Duration,
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
            | Type::Bytes => return Err(SchemaError::UnsupportedType(field.name().to_owned())),
        })
    }
}

fn comments(file: &FileDescriptorProto) -> Comments<'_> {
    let comments = file.source_code_info.iter().flat_map(|info| &info.location).filter_map(|location| {
        let lines: Vec<&str> = location.leading_comments.as_deref()?.lines().map(str::trim).collect();
        Some((location.path.as_slice(), lines.join(" ").trim().to_owned()))
    });
    comments.collect()
}

fn enum_schema(descriptor: &EnumDescriptorProto) -> EnumSchema {
    let prefix = descriptor.value.iter().find_map(|value| value.name().strip_suffix("UNSPECIFIED")).unwrap_or_default();
    let specified = descriptor.value.iter().filter(|value| value.number() != 0).map(EnumValueDescriptorProto::name);
    let values = specified.map(|name| name.strip_prefix(prefix).unwrap_or(name).to_owned()).collect();
    EnumSchema { name: descriptor.name().to_owned(), values }
}

/// Decodes a set of file descriptors.
pub(super) fn decode(bytes: &[u8]) -> Result<FileDescriptorSet, SchemaError> {
    Ok(FileDescriptorSet::decode(bytes)?)
}
