package revoke

// Size is how many names the indexes have.
func (s *Set) Size() int {
	return len(s.byTicket) + len(s.bySubject) + len(s.byClient) + len(s.byKey) + len(s.byStream) + len(s.byPlan) + len(s.lifts)
}
