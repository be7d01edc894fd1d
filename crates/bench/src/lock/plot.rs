//! The throughput of all locks as a picture.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// One line of the picture: a lock, and its throughput for each number of threads, in millions a second.
pub struct Line {
    pub name: &'static str,
    pub points: Vec<(u16, f64)>,
}

/// One panel: the length of its sections, and the locks.
pub struct Panel {
    pub nanoseconds: u64,
    pub lines: Vec<Line>,
}

const SIZE: (u32, u32) = (420, 380);

/// Writes an SVG, a panel for each length of sections, side by side. Both axes are logarithmic.
pub fn write(file: &Path, panels: &[Panel]) -> Result<()> {
    let root = SVGBackend::new(file, (SIZE.0 * panels.len() as u32, SIZE.1)).into_drawing_area();
    // The errors of plotters borrow the drawing area.
    draw(&root, panels).map_err(|error| anyhow!("cannot draw {}: {error}", file.display()))?;
    root.present().map_err(|error| anyhow!("cannot write {}: {error}", file.display()))
}

fn draw<B: DrawingBackend>(
    root: &DrawingArea<B, plotters::coord::Shift>,
    panels: &[Panel],
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    root.fill(&WHITE)?;
    for (area, Panel { nanoseconds, lines }) in root.split_evenly((1, panels.len())).iter().zip(panels) {
        // Powers of two.
        let threads =
            || lines.iter().flat_map(|line| line.points.iter().map(|(threads, _)| f64::from(*threads).log2()));
        let speeds = || lines.iter().flat_map(|line| line.points.iter().map(|(_, speed)| *speed));
        let (least, most) = (speeds().fold(f64::MAX, f64::min).max(1e-4), speeds().fold(1e-3, f64::max));
        let (fewest, many) = (threads().fold(f64::MAX, f64::min), threads().fold(1.0, f64::max));
        let mut chart = ChartBuilder::on(area)
            .caption(format!("sections of {nanoseconds} ns"), ("sans-serif", 16))
            .margin(10)
            .x_label_area_size(36)
            .y_label_area_size(56)
            .build_cartesian_2d(fewest - 0.2..many + 0.2, (least * 0.7..most * 2.0).log_scale())?;
        chart
            .configure_mesh()
            .disable_mesh()
            .x_labels(6)
            .x_label_formatter(&|power| format!("{:.0}", power.exp2()))
            .x_desc("threads")
            .y_desc("million sections a second")
            .draw()?;
        for (index, line) in lines.iter().enumerate() {
            let color = Palette99::pick(index).to_rgba();
            // The first is ours.
            let style = color.stroke_width(if index == 0 { 4 } else { 2 });
            let points = || line.points.iter().map(|(threads, speed)| (f64::from(*threads).log2(), speed.max(1e-4)));
            chart
                .draw_series(LineSeries::new(points(), style))?
                .label(line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
            chart.draw_series(points().map(|point| Circle::new(point, 3, color.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerLeft)
            .background_style(WHITE.mix(0.8))
            .label_font(("sans-serif", 11))
            .draw()?;
    }
    Ok(())
}
