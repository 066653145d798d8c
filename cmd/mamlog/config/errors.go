package config

import (
	"fmt"
	"slices"
	"strings"
)

// Error is one fault of a configuration.
type Error struct {
	File   string
	Line   int
	Option string // its path, as in "hosts[0].test.example.archive_expires_after"; may be empty
	Text   string // what is wrong and what is allowed
}

func (e *Error) Error() string {
	if e.Option == "" {
		return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Text)
	}
	return fmt.Sprintf("%s:%d: %s: %s", e.File, e.Line, e.Option, e.Text)
}

// Errors are all faults of a configuration, by line.
type Errors []*Error

func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// closest is the one of known that word was most likely meant to be, "" if none
// looks like it.
func closest(word string, known []string) string {
	best, distance := "", len(word)/3+2
	for _, k := range known {
		if d := editDistance(strings.ToLower(word), k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// editDistance counts the bytes to insert, delete or replace (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// unknown says that a key isn't known, which one may be meant, and which exist.
func unknown(word string, known []string) string {
	text := fmt.Sprintf("unknown option %q", word)
	if c := closest(word, known); c != "" {
		text += fmt.Sprintf("; did you mean %s?", c)
	}
	known = slices.Clone(known)
	slices.Sort(known)
	return text + " (allowed here: " + strings.Join(known, ", ") + ")"
}
