//! A picture of the refusals.

use std::path::Path;

use plotters::prelude::*;

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
    let error = |problem: String| PlotError { file: file.display().to_string(), problem };
    let root = SVGBackend::new(file, (640, 420)).into_drawing_area();
    // The errors of plotters borrow the drawing area.
    draw(&root, rows).map_err(|problem| error(problem.to_string()))?;
    root.present().map_err(|problem| error(problem.to_string()))
}

fn draw<B: DrawingBackend>(
    root: &DrawingArea<B, plotters::coord::Shift>,
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
