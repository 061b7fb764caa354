"""What every room needs: errors a user can read, atomic writes, params.yaml sections, progress bars."""
