-- Within the transaction that deeds share, one alone can be undone (writer.go).
-- write: begin-deed
SAVEPOINT deed;

-- write: undo-deed
ROLLBACK TO deed;

-- write: end-deed
RELEASE deed;
