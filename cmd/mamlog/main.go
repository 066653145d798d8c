// Command mamlog keeps the message archives of an XMPP service: it serves them,
// and it answers what operators ask about them.
//
// Each subcommand is a file of that name. What they share: open.go opens the
// stores, connect.go finds a running server or stands in for one.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"connectrpc.com/connect"
	"golang.org/x/term"

	"mamlog/cmd/mamlog/config"
)

func main() {
	// Whatever a command makes, in whatever library, is nobody else's business.
	syscall.Umask(0o077)
	a := &app{in: os.Stdin, out: &output{file: os.Stdout}, err: os.Stderr}
	os.Exit(a.run(context.Background(), os.Args[1:]))
}

// app is one run of the program.
type app struct {
	in  *os.File
	out *output
	err *os.File

	configFile string
}

// The exit codes, as the help of the root command lists them.
const (
	exitOK         = 0
	exitFailed     = 1
	exitUsage      = 2
	exitDiffers    = 3
	exitNoSuchUser = 4
	exitTampered   = 5
)

// failure is an error of a command that was called correctly. All others are
// faults in how it was called.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func (a *app) run(ctx context.Context, args []string) int {
	root := newRootCommand(a)
	root.SetArgs(args)
	root.SetOut(a.out)
	root.SetErr(a.err)
	command, err := root.ExecuteContextC(ctx)
	if failed := a.out.err; failed != nil && !errors.Is(err, failed) {
		// What was printed is not whole, whatever the command says of itself.
		a.complain(fmt.Errorf("print the result: %w", failed))
		return exitFailed
	}
	if err == nil {
		return exitOK
	}
	var f *failure
	if !errors.As(err, &f) {
		fmt.Fprintf(a.err, "mamlog: %s\n", harmless(err.Error()))
		fmt.Fprintf(a.err, "Run '%s --help' to see how it is used.\n", command.CommandPath())
		return exitUsage
	}
	if f.err != nil {
		a.complain(f.err)
	}
	return f.code
}

// complain prints an error, each line of it.
func (a *app) complain(err error) {
	prefix := "mamlog: "
	var errs config.Errors
	if errors.As(err, &errs) {
		prefix = "" // they begin with the file, for editors to jump to
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(a.err, "%s%s\n", prefix, harmless(line))
	}
}

// failed turns what the admin API says into an error with an exit code.
func failed(err error) error {
	var f *failure
	if err == nil || errors.As(err, &f) {
		return err
	}
	code := exitFailed
	switch connect.CodeOf(err) {
	case connect.CodeNotFound:
		code = exitNoSuchUser
	case connect.CodeInvalidArgument:
		code = exitUsage
	}
	var c *connect.Error
	if errors.As(err, &c) {
		if !connect.IsWireError(err) && cutOff(err) {
			return &failure{exitFailed, errors.New("the server went away before it had answered")}
		}
		err = errors.New(c.Message())
		if c.Code() == connect.CodeUnavailable {
			err = fmt.Errorf("the server went away: %s", c.Message())
		}
	}
	return &failure{code, err}
}

// cutOff tells whether err is that of a connection whose other end is gone.
func cutOff(err error) bool {
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
