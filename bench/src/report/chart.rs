//! A bar chart as SVG: one bar a party, with whiskers for the spread.

use std::fmt::Write as _;

use super::ratio::Spread;

const WIDTH: f64 = 760.0;
/// Where bars begin: left of it are names.
const LEFT: f64 = 200.0;
/// Right of the longest bar there is place for its figure.
const RIGHT: f64 = 110.0;
const HEAD: f64 = 40.0;
const SECTION: f64 = 28.0;
const BAR: f64 = 26.0;
const STEP: f64 = 40.0;
const FOOT: f64 = 24.0;
const FONT: &str = "font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\"";
const OURS: &str = "#1f6feb";
const PEER: &str = "#8c959f";
const INK: &str = "#1f2328";

/// One bar.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bar {
    pub name: String,
    pub is_ours: bool,
    pub spread: Spread,
}

/// The bars of one metric.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Section {
    pub title: String,
    pub bars: Vec<Bar>,
}

/// The chart of one case.
pub(super) fn svg(title: &str, sections: &[Section]) -> String {
    let bars: usize = sections.iter().map(|section| section.bars.len()).sum();
    let height = HEAD + SECTION * sections.len() as f64 + STEP * bars as f64 + FOOT;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"28\" {FONT} font-size=\"18\" font-weight=\"bold\" fill=\"{INK}\">{}</text>\n",
        escape(title),
    );
    let mut top = HEAD;
    for section in sections {
        let _ = writeln!(
            text,
            "<text x=\"16\" y=\"{:.1}\" {FONT} font-size=\"13\" fill=\"{INK}\">{}</text>",
            top + 16.0,
            escape(&section.title),
        );
        top += SECTION;
        // Every metric has a scale of its own.
        let highest = section.bars.iter().map(|bar| bar.spread.high);
        let longest = highest.fold(0.0, f64::max);
        let scale = if longest > 0.0 {
            (WIDTH - LEFT - RIGHT) / longest
        } else {
            0.0
        };
        for bar in &section.bars {
            one(&mut text, bar, top, scale);
            top += STEP;
        }
    }
    text.push_str("</svg>\n");
    text
}

fn one(text: &mut String, bar: &Bar, top: f64, scale: f64) {
    let Spread {
        low, median, high, ..
    } = bar.spread;
    let colour = if bar.is_ours { OURS } else { PEER };
    let [low, end, high] = [low, median, high].map(|value| LEFT + value * scale);
    let (middle, base) = (top + BAR / 2.0, top + BAR / 2.0 + 5.0);
    let _ = write!(
        text,
        "<text x=\"{:.1}\" y=\"{base:.1}\" {FONT} font-size=\"14\" text-anchor=\"end\" fill=\"{INK}\">{}</text>\n\
         <rect x=\"{LEFT:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR:.1}\" rx=\"3\" fill=\"{colour}\"/>\n\
         <path d=\"M{low:.1} {middle:.1}H{high:.1}M{low:.1} {:.1}v10M{high:.1} {:.1}v10\" \
         stroke=\"{INK}\" stroke-width=\"1.5\" fill=\"none\"/>\n\
         <text x=\"{:.1}\" y=\"{base:.1}\" {FONT} font-size=\"14\" fill=\"{INK}\">{}</text>\n",
        LEFT - 10.0,
        escape(&bar.name),
        end - LEFT,
        middle - 5.0,
        middle - 5.0,
        high.max(end) + 10.0,
        super::table::figure(median),
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: &str, values: &[f64]) -> Bar {
        Bar {
            name: name.to_owned(),
            is_ours: name == "postern",
            spread: Spread::of(values).unwrap(),
        }
    }

    fn section(title: &str, bars: Vec<Bar>) -> Section {
        Section {
            title: title.to_owned(),
            bars,
        }
    }

    #[test]
    fn the_longest_bar_and_its_whisker_stay_inside() {
        let bars = [
            bar("postern", &[1.0, 2.0, 3.0]),
            bar("haproxy", &[30.0, 40.0, 80.0]),
        ];
        let text = svg("bulk", &[section("cpu, s/GB", bars.to_vec())]);
        assert_eq!(text.matches("<rect").count(), 3, "{text}");
        let far = LEFT + 80.0 * (WIDTH - LEFT - RIGHT) / 80.0;
        assert!(text.contains(&format!("H{far:.1}")), "{text}");
        assert!(far + 10.0 < WIDTH);
        // Half of the longest is half as long.
        assert!(
            text.contains(&format!("width=\"{:.1}\"", (far - LEFT) / 2.0)),
            "{text}"
        );
    }

    #[test]
    fn names_cannot_break_the_markup() {
        let text = svg("a<b & \"c\"", &[section("", vec![bar("x>y", &[0.0])])]);
        assert!(
            text.contains("a&lt;b &amp; &quot;c&quot;") && text.contains("x&gt;y"),
            "{text}"
        );
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
}
