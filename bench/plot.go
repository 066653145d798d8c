package bench

import (
	"image/color"
	"math"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Plot is a picture of lines. A log axis shows positive values only.
type Plot struct {
	ID     string   `json:"id"` // of its files
	Title  string   `json:"title"`
	X      string   `json:"x"`
	Y      string   `json:"y"`
	LogX   bool     `json:"log_x"`
	LogY   bool     `json:"log_y"`
	Series []Series `json:"series"`
}

// Series is one line.
type Series struct {
	Name string    `json:"name"`
	Ours bool      `json:"ours"` // drawn heavier
	X    []float64 `json:"x"`
	Y    []float64 `json:"y"`
}

// colours that can be told apart, also by those who don't see red and green
// (Okabe and Ito).
var colours = []color.RGBA{
	{0, 114, 178, 255}, {230, 159, 0, 255}, {0, 158, 115, 255}, {204, 121, 167, 255},
	{213, 94, 0, 255}, {86, 180, 233, 255}, {120, 120, 120, 255}, {170, 150, 40, 255}, {60, 60, 60, 255},
}

var shapes = []draw.GlyphDrawer{
	draw.CircleGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{}, draw.BoxGlyph{}, draw.RingGlyph{},
	draw.PyramidGlyph{}, draw.CrossGlyph{}, draw.PlusGlyph{}, draw.CircleGlyph{},
}

// draw writes the plot as path.png and path.svg.
func (p Plot) draw(path string) error {
	pl := plot.New()
	pl.Title.Text = p.Title
	pl.X.Label.Text, pl.Y.Label.Text = p.X, p.Y
	for _, f := range []*font.Font{
		&pl.Title.TextStyle.Font, &pl.X.Label.TextStyle.Font, &pl.Y.Label.TextStyle.Font,
		&pl.X.Tick.Label.Font, &pl.Y.Tick.Label.Font, &pl.Legend.TextStyle.Font,
	} {
		f.Variant = "Sans"
	}
	pl.Add(plotter.NewGrid())
	for i, s := range p.Series {
		var points plotter.XYs
		for j := range s.X {
			if !finite(s.X[j]) || !finite(s.Y[j]) || p.LogX && s.X[j] <= 0 || p.LogY && s.Y[j] <= 0 {
				continue
			}
			points = append(points, plotter.XY{X: s.X[j], Y: s.Y[j]})
		}
		if len(points) == 0 {
			continue
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return err
		}
		c := colours[i%len(colours)]
		line.Color, dots.Color = c, c
		line.Width = vg.Points(1.2)
		dots.Shape, dots.Radius = shapes[i%len(shapes)], vg.Points(2.6)
		if s.Ours {
			line.Width = vg.Points(2.6)
		}
		pl.Add(line, dots)
		pl.Legend.Add(s.Name, line, dots)
	}
	if p.LogX {
		pl.X.Scale, pl.X.Tick.Marker = plot.LogScale{}, decades{}
	}
	if p.LogY {
		pl.Y.Scale, pl.Y.Tick.Marker = plot.LogScale{}, decades{}
	} else {
		pl.Y.Min = 0
	}
	// One place on an axis has no extent, which a scale can't be made of.
	widen(&pl.X.Min, &pl.X.Max, p.LogX)
	widen(&pl.Y.Min, &pl.Y.Max, p.LogY)
	pl.Legend.TextStyle.Font.Size = vg.Points(8)
	pl.Legend.Top, pl.Legend.Padding = true, vg.Points(2)
	pl.Legend.XOffs, pl.Legend.YOffs = -vg.Points(4), -vg.Points(4)
	// Room for the legend above the lines.
	room := 1 + 0.09*float64(len(p.Series))
	if p.LogY {
		pl.Y.Max *= math.Pow(pl.Y.Max/pl.Y.Min, room-1)
	} else {
		pl.Y.Max *= room
	}
	for _, format := range []string{".png", ".svg"} {
		if err := pl.Save(8*vg.Inch, 5*vg.Inch, path+format); err != nil {
			return err
		}
	}
	return nil
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

func widen(low, high *float64, log bool) {
	switch {
	case math.IsInf(*low, 0) || math.IsInf(*high, 0): // nothing to show
		*low, *high = 1, 10
	case *low < *high:
	case log:
		*low, *high = *low/2, *high*2
	default:
		*low, *high = *low-0.5, *high+0.5
	}
}

// decades marks the powers of ten, and 2 and 5 between them where there are few.
type decades struct{}

func (decades) Ticks(low, high float64) (ticks []plot.Tick) {
	few := high/low < 1000
	for d := math.Floor(math.Log10(low)); d <= math.Ceil(math.Log10(high)); d++ {
		for m := 1.0; m < 10; m++ {
			v := m * math.Pow(10, d)
			if v < low || v > high {
				continue
			}
			t := plot.Tick{Value: v}
			if m == 1 || few && (m == 2 || m == 5) {
				t.Label = tickLabel(v)
			}
			ticks = append(ticks, t)
		}
	}
	return ticks
}

func tickLabel(v float64) string {
	if v >= 1 {
		return grouped(int64(math.Round(v)))
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}
