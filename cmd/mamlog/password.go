package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// readPassword reads the first line of standard input. On a terminal it asks
// for the password twice and does not show it.
func (a *app) readPassword(of string) (string, error) {
	if isTerminal(a.in) {
		return askPassword(a.in, a.err, of)
	}
	line, err := bufio.NewReader(io.LimitReader(a.in, 1<<16)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", &failure{exitFailed, fmt.Errorf("read the password from standard input: %w", err)}
	}
	line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	if line == "" {
		return "", &failure{exitUsage, errors.New("no password: it is the first line of standard input, as in: echo \"$PASSWORD\" | mamlog user add " + of)}
	}
	return line, nil
}

func askPassword(in, out *os.File, of string) (string, error) {
	ask := func(prompt string) (string, error) {
		fmt.Fprint(out, prompt)
		b, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(out)
		if err != nil {
			return "", &failure{exitFailed, fmt.Errorf("read the password: %w", err)}
		}
		return string(b), nil
	}
	first, err := ask("Password for " + of + ": ")
	if err != nil {
		return "", err
	}
	if first == "" {
		return "", &failure{exitUsage, errors.New("the password is empty")}
	}
	second, err := ask("The same again: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", &failure{exitUsage, errors.New("the two passwords differ")}
	}
	return first, nil
}
