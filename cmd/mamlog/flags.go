package main

import (
	"errors"
	"strconv"
)

// An option that is given asks for something: were an empty or zero one taken as
// not given, a script with an unset variable would get a whole archive.

// countFlag is a number of at least 1; 0 is not given.
type countFlag uint64

func (f *countFlag) String() string {
	if *f == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(*f), 10)
}

func (f *countFlag) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		return errors.New("the number is too large")
	}
	if err != nil || n < 1 {
		return errors.New("it must be a whole number of at least 1")
	}
	*f = countFlag(n)
	return nil
}

func (f *countFlag) Type() string { return "N" }

// textFlag is a text that isn't empty where it is given.
type textFlag string

func (f *textFlag) String() string { return string(*f) }

func (f *textFlag) Set(s string) error {
	if s == "" {
		return errors.New("it is empty; give it a value, or leave the option out")
	}
	*f = textFlag(s)
	return nil
}

func (f *textFlag) Type() string { return "TEXT" }
