package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/rivo/uniseg"
	"golang.org/x/term"

	adminv1 "mamlog/admin/v1"
	"mamlog/log"
)

// tablePrinter prints a line a message. Pages are printed as they come, so a
// column is as wide as what has come until then needs it.
type tablePrinter struct {
	out   io.Writer
	err   io.Writer
	width int // of the terminal; 0 if it isn't one
	with  int // width of the column
	count int
}

func newTablePrinter(a *app, out io.Writer) *tablePrinter {
	p := &tablePrinter{out: out, err: a.err}
	if isTerminal(a.out.file) {
		if width, _, err := term.GetSize(int(a.out.file.Fd())); err == nil {
			p.width = width
		}
	}
	return p
}

const (
	timeWidth    = len("2026-11-22 20:27:03.000")
	maxWithWidth = 40
)

// withWidth is how wide the column may become.
func (p *tablePrinter) withWidth() int {
	if p.width == 0 {
		return maxWithWidth
	}
	return min(maxWithWidth, max(16, (p.width-timeWidth-8)*2/5))
}

func (p *tablePrinter) page(page *adminv1.QueryArchiveResponse) error {
	for _, m := range page.GetMessages() {
		p.with = max(p.with, min(p.withWidth(), uniseg.StringWidth(harmless(m.GetWith()))))
	}
	if len(page.GetMessages()) > 0 && p.count == 0 {
		p.with = max(p.with, len("WITH"))
		if err := p.line("TIME (UTC)", "", "WITH", "MESSAGE"); err != nil {
			return err
		}
	}
	for _, m := range page.GetMessages() {
		p.count++
		if err := p.line(clock(m.GetStamp().AsTime()), arrow(m.GetDirection()), harmless(m.GetWith()), firstLine(m)); err != nil {
			return err
		}
	}
	return nil
}

func (p *tablePrinter) line(time, arrow, with, text string) error {
	line := pad(time, timeWidth) + "  " + pad(arrow, 2) + "  " + pad(isolated(cut(with, p.with)), p.with) + "  "
	if p.width > 0 {
		text = cut(text, max(10, p.width-uniseg.StringWidth(line)))
	}
	_, err := fmt.Fprintln(p.out, line+isolated(text))
	return err
}

func (p *tablePrinter) end() error {
	if p.count == 0 {
		fmt.Fprintln(p.err, "no messages")
	}
	return nil
}

func arrow(d log.Direction) string {
	switch d {
	case log.Direction_DIRECTION_IN:
		return "<-"
	case log.Direction_DIRECTION_OUT:
		return "->"
	case log.Direction_DIRECTION_SELF:
		return "<>"
	case log.Direction_DIRECTION_ROOM:
		return "**"
	}
	return "??"
}

// firstLine is the first line of the body that isn't empty, or in brackets what
// a message without one is.
func firstLine(m *adminv1.Message) string {
	lines := strings.FieldsFunc(m.GetBody(), func(r rune) bool { return r == '\n' || r == '\r' })
	for i, l := range lines {
		if strings.TrimSpace(l) == "" {
			continue
		}
		if i < len(lines)-1 {
			l += " …"
		}
		return harmless(l)
	}
	if m.GetReason() == log.Reason_REASON_BODY {
		return "[blank text]"
	}
	kind := strings.ToLower(strings.TrimPrefix(m.GetReason().String(), "REASON_"))
	return "[" + strings.ReplaceAll(kind, "_", " ") + "]"
}

// pad fills s up to a width of cells on the screen.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-uniseg.StringWidth(s)))
}

// cut shortens s to a width of cells on the screen.
func cut(s string, width int) string {
	if uniseg.StringWidth(s) <= width {
		return s
	}
	var b strings.Builder
	used := 0
	for g := uniseg.NewGraphemes(s); g.Next() && used+g.Width() < width; {
		b.WriteString(g.Str())
		used += g.Width()
	}
	return b.String() + "…"
}
