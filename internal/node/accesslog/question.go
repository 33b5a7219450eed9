package accesslog

import (
	"errors"
	"time"
)

// logQuestions is the log of questions about names outside the mesh. It has a file of its own, so that many questions
// push nothing out of the other.
const logQuestions = "dns"

// Question logs which workload asked for which name outside the mesh, and the outcome.
func (s *Service) Question(workload, name, qtype, result string) {
	e := Entry{Time: time.Now(), Log: logQuestions, Verdict: result, Caller: workload, Destination: name, Method: qtype}
	if err := errors.Join(s.questions.write(&e), s.questions.flush()); err != nil {
		s.cfg.Log.Debug("DNS question not logged", "file", s.questions.path, "error", err)
	}
}
