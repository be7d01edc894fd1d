//! Pictures: of the refusals though nobody recurs, and of the times until a caller is told of a deadlock.

use std::path::Path;
use std::time::Duration;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::deadlock::{LOCK_TIMEOUT, Times};
use crate::spurious::Row;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw {file}: {problem}")]
pub struct PlotError {
    file: String,
    problem: String,
}

/// Writes an SVG: for each number of tasks a processor and each guard a bar, as high as the share of get-or-creates that were refused
/// though nobody recurred.
pub fn plot(file: &Path, rows: &[Row]) -> Result<(), PlotError> {
    write(file, (640, 420), |root| draw(root, rows))
}

/// Writes an SVG: for each kind of deadlock how many callers were told how soon, on a scale of powers of ten.
pub fn plot_times(file: &Path, kinds: &[Times]) -> Result<(), PlotError> {
    write(file, (640, 60 + 170 * kinds.len() as u32), |root| draw_times(root, kinds))
}

fn write<'a>(
    file: &'a Path,
    size: (u32, u32),
    draw: impl FnOnce(&DrawingArea<SVGBackend<'a>, Shift>) -> Result<(), DrawingAreaErrorKind<std::io::Error>>,
) -> Result<(), PlotError> {
    let error = |problem: String| PlotError { file: file.display().to_string(), problem };
    let root = SVGBackend::new(file, size).into_drawing_area();
    // The errors of plotters borrow the drawing area.
    draw(&root).map_err(|problem| error(problem.to_string()))?;
    root.present().map_err(|problem| error(problem.to_string()))
}

fn draw_times<B: DrawingBackend>(
    root: &DrawingArea<B, Shift>,
    kinds: &[Times],
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    root.fill(&WHITE)?;
    let root = root.titled("time until a caller is told (the line: a lock's timeout)", ("sans-serif", 18))?;
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let bins: Vec<_> = kinds.iter().map(Times::histogram).collect();
    let all = || bins.iter().flatten().map(|(from, to, _)| (millis(*from), millis(*to)));
    // The same scale for all, with the lock's timeout on it.
    let first = all().map(|(from, _)| from).fold(0.1, f64::min);
    let last = all().map(|(_, to)| to).fold(1000.0, f64::max);
    for (number, (area, times)) in root.split_evenly((kinds.len(), 1)).iter().zip(kinds).enumerate() {
        let most = bins[number].iter().map(|(_, _, count)| *count).max().unwrap_or(1) as f64 * 1.25;
        let mut chart = ChartBuilder::on(area)
            .margin_left(12)
            .margin_right(24)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d((first..last).log_scale(), 0.0..most)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .x_desc("ms")
            .y_desc(times.kind.name())
            .y_labels(4)
            .x_label_formatter(&|millis| format!("{millis}"))
            .y_label_formatter(&|count| format!("{count:.0}"))
            .draw()?;
        let color = Palette99::pick(number).to_rgba();
        let bars = bins[number].iter().map(|(from, to, count)| {
            Rectangle::new([(millis(*from), 0.0), (millis(*to), *count as f64)], color.filled())
        });
        chart.draw_series(bars)?;
        let timeout = millis(LOCK_TIMEOUT);
        chart.draw_series([PathElement::new([(timeout, 0.0), (timeout, most)], BLACK.stroke_width(1))])?;
        let median = times.median().map_or("-".to_owned(), |median| format!("{:.1} ms", millis(median)));
        let text = format!("{} told, median {median}", times.refused.len());
        chart.draw_series([Text::new(text, (first * 1.1, most * 0.9), ("sans-serif", 12))])?;
    }
    Ok(())
}

fn draw<B: DrawingBackend>(
    root: &DrawingArea<B, Shift>,
    rows: &[Row],
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    root.fill(&WHITE)?;
    let percent = |row: &Row| row.busy_share() * 100.0;
    let most = rows.iter().map(percent).fold(0.0, f64::max).max(1e-6) * 1.25;
    let mut chart = ChartBuilder::on(root)
        .caption("refused though nobody recurs", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..rows.len() as f64, 0.0..most)?;
    let label = |at: &f64| rows.get(at.floor() as usize).map_or(String::new(), |row| format!("{} tasks", row.tasks));
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(rows.len())
        .x_label_formatter(&label)
        .x_desc("tasks on each processor")
        .y_desc("% of get-or-creates")
        .draw()?;
    for (legacy, name) in [(true, "percpu-counter"), (false, "rqspinlock")] {
        let color = Palette99::pick(usize::from(!legacy)).to_rgba();
        let bars = rows.iter().enumerate().filter(|(_, row)| row.legacy == legacy).map(|(at, row)| {
            let (left, right) = (at as f64 + 0.15, at as f64 + 0.85);
            Rectangle::new([(left, 0.0), (right, percent(row))], color.filled())
        });
        chart
            .draw_series(bars)?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.filled()));
    }
    let figures = rows.iter().enumerate().map(|(at, row)| {
        let text = format!("{:.4} % of {:.0} M", percent(row), row.operations as f64 / 2e6);
        Text::new(text, (at as f64 + 0.15, percent(row) + most * 0.04), ("sans-serif", 12))
    });
    chart.draw_series(figures)?;
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE.mix(0.8)).draw()
}
