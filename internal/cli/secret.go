package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// writeSecret creates a file that only its owner may read. It never overwrites a file.
func writeSecret(path, content string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return badInput("choose another --out, or remove the file first", "%s exists and is not overwritten", path)
	}
	if err != nil {
		return badInput("choose another --out", "write secret: %s", err)
	}
	_, err = io.WriteString(f, content)
	return errors.Join(err, f.Close())
}

// checkOut refuses an --out that could not be written, before the secret is created.
func checkOut(path string) error {
	if path == "" {
		return nil
	}
	if _, err := os.Lstat(path); err == nil {
		return badInput("choose another --out, or remove the file first", "%s exists and is not overwritten", path)
	}
	return nil
}

// readSecret reads one line from a file, or from standard input for "-".
func readSecret(in io.Reader, path string) (string, error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", badInput("name the file that holds the token, or - for standard input", "read token: %s", err)
		}
		defer f.Close()
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, 64<<10))
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	token := strings.TrimSpace(string(raw))
	if token == "" || strings.ContainsAny(token, " \n\t") {
		return "", badInput("give the token alone: one line, as it was printed", "%s holds no token", path)
	}
	return token, nil
}

// confirm asks for confirmation of a command that interrupts traffic, by --yes or by typing the name.
func (a *app) confirm(cmd *cobra.Command, yes bool, name, effect string) error {
	return a.confirmTyped(cmd, yes, " "+name, name, effect)
}

// confirmTyped is confirm for a command with args. name is what must be typed.
func (a *app) confirmTyped(cmd *cobra.Command, yes bool, args, name, effect string) error {
	if yes {
		return nil
	}
	if !a.Terminal {
		return &Error{
			Code: exitUsage, Text: effect + " There is nobody to confirm it.",
			Next: cmd.CommandPath() + args + connectionFlags(cmd.Flags()) + " --yes",
		}
	}
	fmt.Fprintf(a.Err, "%s\nType %q to continue: ", effect, name)
	line, err := bufio.NewReader(a.In).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if strings.TrimSpace(line) != name {
		return &Error{Code: exitFailed, Text: "not confirmed: nothing was changed"}
	}
	return nil
}
