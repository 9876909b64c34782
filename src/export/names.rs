//! The distinct names in an export. Rows refer to a name by its number instead of its text.
//!
//! **Invariant**: the number of a name is both the index of the name in the list of its column and the category of the
//! name in a data frame.

use polars::prelude::{CategoricalPhysical, Categories, DataType, PolarsResult};

use super::schema::{Column, HEALTH, PAIR, ZONE};
use crate::analysis::Zone;
use crate::domain::{Health, SeriesKey, Source};

/// The names of one column.
pub(super) struct NameList {
    texts: Vec<String>,
    data_type: DataType,
}

impl NameList {
    /// Creates a list of distinct texts.
    fn new(texts: Vec<String>) -> PolarsResult<Self> {
        let data_type = DataType::from_categories(Categories::random("silkrate".into(), CategoricalPhysical::U32));
        if let DataType::Categorical(_, mapping) = &data_type {
            for text in &texts {
                mapping.insert_cat(text)?;
            }
        }
        Ok(Self { texts, data_type })
    }

    /// The data frame type of a column with these names.
    pub(super) fn data_type(&self) -> &DataType {
        &self.data_type
    }

    pub(super) fn text(&self, number: u32) -> &str {
        self.texts.get(number as usize).map_or("", String::as_str)
    }
}

/// The numbers of a series' pair and source, and of the time zone of its days or candles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SeriesNames {
    pub(super) pair: u32,
    pub(super) source: u32,
    pub(super) zone: u32,
}

/// The names in all columns of an export.
pub(super) struct Names {
    pairs: NameList,
    sources: NameList,
    healths: NameList,
    zones: NameList,
    of_series: Vec<SeriesNames>,
}

impl Names {
    /// Collects the names of `series`, in the order of the series, each with the time zone of its days or candles, and
    /// the names of the sources that were polled.
    ///
    /// # Errors
    /// Returns an error if a list has more than 2^32 names.
    pub(super) fn new<'a>(
        series: impl Iterator<Item = (&'a SeriesKey, Zone)>,
        polled: impl Iterator<Item = &'a Source>,
    ) -> PolarsResult<Self> {
        let (mut pairs, mut sources, mut zones) = (Vec::new(), Vec::new(), Vec::new());
        let names = |(key, zone): (&SeriesKey, Zone)| SeriesNames {
            pair: number_of(&mut pairs, &key.pair),
            source: number_of(&mut sources, &key.source),
            zone: number_of(&mut zones, &zone),
        };
        let of_series = series.map(names).collect();
        for source in polled {
            number_of(&mut sources, source);
        }
        let healths = Health::ALL.map(|health| health.name().to_owned()).into();
        Ok(Self {
            pairs: NameList::new(pairs)?,
            sources: NameList::new(sources)?,
            healths: NameList::new(healths)?,
            zones: NameList::new(zones)?,
            of_series,
        })
    }

    /// The names of a column of [`Kind::Name`](super::schema::Kind::Name).
    pub(super) fn list(&self, column: &Column) -> &NameList {
        match column.name {
            name if name == PAIR.name => &self.pairs,
            name if name == HEALTH.name => &self.healths,
            name if name == ZONE.name => &self.zones,
            _ => &self.sources,
        }
    }

    /// Returns the numbers of a series' pair and source, by the index of the series in the export.
    pub(super) fn of_series(&self, number: usize) -> SeriesNames {
        self.of_series[number]
    }

    pub(super) fn source(&self, source: &Source) -> u32 {
        let at = self.sources.texts.iter().position(|text| text == source.as_str()).unwrap_or_default();
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    pub(super) fn health(health: Health) -> u32 {
        let at = Health::ALL.iter().position(|other| *other == health).unwrap_or_default();
        u32::try_from(at).unwrap_or(u32::MAX)
    }
}

/// Returns the index of `name` in the list; a new name is appended.
fn number_of(names: &mut Vec<String>, name: &impl ToString) -> u32 {
    let name = name.to_string();
    // Series are sorted, so a known name is nearly always close to the end.
    let at = names.iter().rposition(|other| *other == name).unwrap_or_else(|| {
        names.push(name);
        names.len() - 1
    });
    // A store has at most 100,000 series.
    u32::try_from(at).unwrap_or(u32::MAX)
}
