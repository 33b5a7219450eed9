package node

import (
	"fmt"
	"os"

	"isthmus.dev/isthmus/internal/strictyaml"
)

// LoadConfig reads an agent's configuration file, applies defaults and refuses anything unknown or wrong. The error
// joins one strictyaml.Problem for each fault.
func LoadConfig(path string) (Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read agent configuration: %w", err)
	}
	return parseConfig(path, text)
}

func parseConfig(path string, text []byte) (Config, error) {
	var c Config
	settings, err := strictyaml.ReadSettings(path, text, &c)
	if err != nil {
		return Config{}, err
	}
	c.defaults()
	r := reader{settings: settings}
	c.validate(&r)
	return c, strictyaml.Join(r.problems)
}

// reader collects what is wrong with settings.
type reader struct {
	settings strictyaml.Settings
	problems []strictyaml.Problem
}

func (r *reader) add(field, message, remedy string) {
	r.problems = append(r.problems, r.settings.Problem(field, message, remedy))
}
