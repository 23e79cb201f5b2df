"""The six LaMP tasks, one file each. They are registered as entry points, like anyone's."""
