package verify

// LogInfo says what became of an access log.
type LogInfo struct {
	File          string `json:"file"`
	Lines         int    `json:"lines"`
	Replayed      int    `json:"replayed"`
	NotUnderstood int    `json:"notUnderstood"`
	NotSafe       int    `json:"notSafe"` // methods that may change something
	Repeated      int    `json:"repeated"`
}

func (c *comparison) replayed() ([]*request, error) { return nil, nil }
