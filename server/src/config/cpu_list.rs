//! A list of processors as Linux writes it: `0,2-3`.

use std::str::FromStr;

use serde::Deserialize;

/// The largest processor number taken; Linux supports fewer.
const MOST: usize = 65_535;

/// Processors, in the order given, each once.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct CpuList(pub Vec<usize>);

impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("{part:?} runs backwards: write the smaller number first"));
            }
            for cpu in first..=last {
                if cpus.contains(&cpu) {
                    return Err(format!("processor {cpu} is named twice: use --workers-per-cpu for more workers"));
                }
                cpus.push(cpu);
            }
        }
        Ok(Self(cpus))
    }
}

fn number(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(cpu) if cpu <= MOST => Ok(cpu),
        _ => Err(format!("{text:?} is not a processor: expected numbers up to {MOST} and ranges of them, as 0,2-3")),
    }
}

impl TryFrom<String> for CpuList {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::CpuList;

    fn cpus(text: &str) -> Result<Vec<usize>, String> {
        text.parse().map(|CpuList(cpus)| cpus)
    }

    #[test]
    fn takes_numbers_and_ranges_in_the_order_given() {
        assert_eq!(cpus("3"), Ok(vec![3]));
        assert_eq!(cpus("4, 0-2"), Ok(vec![4, 0, 1, 2]));
    }

    #[test]
    fn refuses_what_names_no_processor() {
        for wrong in ["", "0,", "a", "-1", "1-", "2-1", "0,0", "0-2,1", "65536", "0-99999999999"] {
            assert!(cpus(wrong).is_err(), "{wrong:?} was taken");
        }
    }
}
