//! Growth and latencies as pictures.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// Lines by their names.
pub type Lines = Vec<(String, Vec<(f64, f64)>)>;

/// One panel. Both axes are logarithmic.
pub struct Panel {
    title: String,
    x: String,
    y: &'static str,
    lines: Lines,
}

impl Panel {
    pub fn new(title: impl Into<String>, x: impl Into<String>, y: &'static str, lines: Lines) -> Panel {
        Panel { title: title.into(), x: x.into(), y, lines }
    }
}

const SIZE: (u32, u32) = (460, 380);
const IN_A_ROW: usize = 3;

/// Writes an SVG of all panels; none where there is none.
pub fn write(file: &Path, panels: &[Panel]) -> Result<()> {
    let across = panels.len().min(IN_A_ROW);
    if across == 0 {
        return Ok(());
    }
    let down = panels.len().div_ceil(across);
    let root = SVGBackend::new(file, (SIZE.0 * across as u32, SIZE.1 * down as u32)).into_drawing_area();
    // The errors of plotters borrow the drawing area.
    draw(&root, panels, (down, across)).map_err(|error| anyhow!("cannot draw {}: {error}", file.display()))?;
    root.present().map_err(|error| anyhow!("cannot write {}: {error}", file.display()))
}

/// Around all of them, with room at both ends.
fn range(values: impl Iterator<Item = f64> + Clone) -> std::ops::Range<f64> {
    let (least, most) = (values.clone().fold(f64::MAX, f64::min), values.fold(f64::MIN_POSITIVE, f64::max));
    least.min(most) * 0.7..most * 1.6
}

fn draw<B: DrawingBackend>(
    root: &DrawingArea<B, plotters::coord::Shift>,
    panels: &[Panel],
    grid: (usize, usize),
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    root.fill(&WHITE)?;
    for (area, Panel { title, x, y, lines }) in root.split_evenly(grid).iter().zip(panels) {
        // Neither axis has a place for nothing.
        let positive = |point: &&(f64, f64)| point.0 > 0.0 && point.1 > 0.0;
        let points = || lines.iter().flat_map(|(_, points)| points).filter(positive);
        if points().next().is_none() {
            continue;
        }
        let (across, up) = (range(points().map(|point| point.0)), range(points().map(|point| point.1)));
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 15))
            .margin(10)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d(across.log_scale(), up.log_scale())?;
        let whole = |number: &f64| format!("{number:.0}");
        let mut mesh = chart.configure_mesh();
        mesh.disable_mesh().x_labels(5).y_labels(6).x_label_formatter(&whole).y_label_formatter(&whole);
        mesh.x_desc(x).y_desc(*y).draw()?;
        for (index, (name, points)) in lines.iter().enumerate() {
            let style = Palette99::pick(index).to_rgba().stroke_width(2);
            let points = || points.iter().filter(positive).copied();
            chart
                .draw_series(LineSeries::new(points(), style))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
            chart.draw_series(points().map(|point| Circle::new(point, 3, style.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .label_font(("sans-serif", 11))
            .draw()?;
    }
    Ok(())
}
