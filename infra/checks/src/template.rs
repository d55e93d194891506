//! A CloudFormation template as the rules read it: JSON with functions in their long form (`!Ref X` is `{"Ref": "X"}`),
//! each value's line kept.
//! Source: AWS CloudFormation User Guide, "Intrinsic function reference".

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use filter_core::names::Partition;
use saphyr::{LoadableYamlNode as _, MarkedYaml, Scalar, YamlData};
use serde_json::{Map, Value};

/// The partitions that have templates.
pub const PARTITIONS: [Partition; 2] = [Partition::Commercial, Partition::GovCloud];

/// The directory of a partition's templates under `infra/templates`.
pub const fn directory(partition: Partition) -> &'static str {
    match partition {
        Partition::Commercial => "commercial",
        Partition::GovCloud => "govcloud",
    }
}

/// The region that a partition's templates are checked for.
pub const fn region(partition: Partition) -> &'static str {
    match partition {
        Partition::Commercial => "us-east-1",
        Partition::GovCloud => "us-gov-west-1",
    }
}

/// Why a template cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    /// Not YAML, or YAML that CloudFormation does not accept.
    #[error("{file}: {problem}")]
    Yaml {
        file: String,
        /// With its line.
        problem: String,
    },
}

#[derive(Debug, Clone)]
pub struct Template {
    /// Below `infra/templates`: `govcloud/audit.yaml`.
    pub file: String,
    pub partition: Partition,
    pub document: Value,
    /// JSON pointer → line, counted from 1.
    lines: BTreeMap<String, usize>,
}

#[derive(Debug, Clone, Copy)]
pub struct Resource<'a> {
    /// Its logical id.
    pub id: &'a str,
    /// `AWS::DynamoDB::Table`.
    pub kind: &'a str,
    pub body: &'a Value,
}

impl<'a> Resource<'a> {
    /// A property by its JSON pointer, `null` where it is absent.
    pub fn property(&self, pointer: &str) -> &'a Value {
        self.body.pointer(&format!("/Properties{pointer}")).unwrap_or(&Value::Null)
    }
}

impl Template {
    /// Reads every template below `templates` (`infra/templates`), by file name in order.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn all(templates: &Path) -> Result<Vec<Self>, TemplateError> {
        let mut found = Vec::new();
        for partition in PARTITIONS {
            let path = templates.join(directory(partition));
            let failed = |source| TemplateError::File { path: path.clone(), source };
            for entry in std::fs::read_dir(&path).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let text = std::fs::read_to_string(&path)
                    .map_err(|source| TemplateError::File { path: path.clone(), source })?;
                found.push(Self::parse(format!("{}/{name}", directory(partition)), partition, &text)?);
            }
        }
        found.sort_by(|left, right| left.file.cmp(&right.file));
        Ok(found)
    }

    /// A template from its text.
    ///
    /// # Errors
    /// [`TemplateError::Yaml`].
    pub fn parse(file: String, partition: Partition, text: &str) -> Result<Self, TemplateError> {
        // CloudFormation shows other letters as question marks, and the AWS CLI decodes files by its locale.
        if let Some((index, _)) = text.lines().enumerate().find(|(_, line)| !line.is_ascii()) {
            return Err(TemplateError::Yaml {
                file,
                problem: format!("line {}: a character that is not ASCII", index + 1),
            });
        }
        let nodes = MarkedYaml::load_from_str(text)
            .map_err(|error| TemplateError::Yaml { file: file.clone(), problem: error.to_string() })?;
        let [node] = nodes.as_slice() else {
            return Err(TemplateError::Yaml { file, problem: format!("{} YAML documents; want one", nodes.len()) });
        };
        let mut lines = BTreeMap::new();
        match convert(node, String::new(), &mut lines) {
            Ok(document) => Ok(Self { file, partition, document, lines }),
            Err(problem) => Err(TemplateError::Yaml { file, problem }),
        }
    }

    /// The resources, by logical id in order.
    pub fn resources(&self) -> impl Iterator<Item = Resource<'_>> {
        self.document.get("Resources").and_then(Value::as_object).into_iter().flatten().map(|(id, body)| {
            let kind = body.get("Type").and_then(Value::as_str).unwrap_or_default();
            Resource { id, kind, body }
        })
    }

    /// The resources of a type.
    pub fn of_type<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = Resource<'a>> {
        self.resources().filter(move |resource| resource.kind == kind)
    }

    /// The default of a parameter.
    pub fn default(&self, parameter: &str) -> Option<&Value> {
        self.document.get("Parameters")?.get(parameter)?.get("Default")
    }

    /// The line of the value at a JSON pointer, else of its nearest parent.
    pub fn line(&self, pointer: &str) -> usize {
        let mut at = pointer;
        loop {
            if let Some(line) = self.lines.get(at) {
                return *line;
            }
            match at.rsplit_once('/') {
                Some((outer, _)) => at = outer,
                None => return 1,
            }
        }
    }
}

fn convert(node: &MarkedYaml<'_>, at: String, lines: &mut BTreeMap<String, usize>) -> Result<Value, String> {
    let line = node.span.start.line();
    // A tag's argument has no line of its own.
    if line > 0 {
        lines.insert(at.clone(), line);
    }
    Ok(match &node.data {
        YamlData::Value(scalar) => match scalar {
            Scalar::Null => Value::Null,
            Scalar::Boolean(value) => Value::from(*value),
            Scalar::Integer(value) => Value::from(*value),
            Scalar::FloatingPoint(value) => Value::from(value.into_inner()),
            Scalar::String(value) => Value::from(value.as_ref()),
        },
        YamlData::Sequence(items) => {
            let items = items.iter().enumerate().map(|(index, item)| convert(item, format!("{at}/{index}"), lines));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        YamlData::Mapping(entries) => {
            let mut object = Map::new();
            for (key, value) in entries {
                let YamlData::Value(Scalar::String(key)) = &key.data else {
                    return Err(format!("line {}: a key that is not a string", key.span.start.line()));
                };
                let escaped = key.replace('~', "~0").replace('/', "~1");
                object.insert(key.to_string(), convert(value, format!("{at}/{escaped}"), lines)?);
            }
            Value::Object(object)
        }
        YamlData::Tagged(tag, inner) => function(&tag.suffix, convert(inner, at, lines)?),
        YamlData::Representation(..) | YamlData::Alias(_) | YamlData::BadValue => {
            return Err(format!("line {line}: a value that CloudFormation does not accept"));
        }
    })
}

/// A function in its long form.
fn function(tag: &str, argument: Value) -> Value {
    let (name, argument) = match (tag, argument) {
        ("Ref" | "Condition", argument) => (tag.to_owned(), argument),
        ("GetAtt", Value::String(dotted)) => {
            let parts = dotted.splitn(2, '.').map(Value::from).collect();
            ("Fn::GetAtt".to_owned(), Value::Array(parts))
        }
        (tag, argument) => (format!("Fn::{tag}"), argument),
    };
    Value::Object(Map::from_iter([(name, argument)]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> Result<Template, TemplateError> {
        Template::parse("govcloud/x.yaml".to_owned(), Partition::GovCloud, text)
    }

    #[test]
    fn reads_functions_in_their_long_form() {
        let text =
            "A: !Ref X\nB: !GetAtt K.Arn\nC: !Sub 'x-${Y}'\nD: !Select [0, !GetAZs '']\nE: !If [Z, 1, yes]\nF: 012\n";
        let template = parse(text).unwrap();
        let wanted = json!({
            "A": {"Ref": "X"},
            "B": {"Fn::GetAtt": ["K", "Arn"]},
            "C": {"Fn::Sub": "x-${Y}"},
            "D": {"Fn::Select": [0, {"Fn::GetAZs": ""}]},
            "E": {"Fn::If": ["Z", 1, "yes"]},
            "F": 12,
        });
        assert_eq!(template.document, wanted);
    }

    #[test]
    fn an_absent_value_has_the_line_of_its_parent() {
        let template = parse("Resources:\n  A/B:\n    Type: T\n    Properties:\n      P:\n        - Q: 1\n").unwrap();
        assert_eq!(template.line("/Resources/A~1B/Type"), 3);
        assert_eq!(template.line("/Resources/A~1B/Properties/P/0/Q"), 6);
        assert_eq!(template.line("/Resources/A~1B/Properties/None/There"), 5);
        assert_eq!(template.resources().map(|resource| resource.id).collect::<Vec<_>>(), ["A/B"]);
    }

    #[test]
    fn refuses_a_bad_template_with_its_line() {
        let cases = [
            ("a: [", "govcloud/x.yaml: "),
            ("", "0 YAML documents"),
            ("a: 1\n---\nb: 1\n", "2 YAML documents"),
            ("a:\n  1: 2\n", "line 2: a key that is not a string"),
            ("a: 1\nb: \u{2026}\n", "line 2: a character that is not ASCII"),
        ];
        for (text, wanted) in cases {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text:?}: {error}");
        }
    }
}
